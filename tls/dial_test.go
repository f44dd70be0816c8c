package tls

import (
	"strings"
	"testing"
)

func TestDialTrustsOursOnly(t *testing.T) {
	r := newRig(t, PortOptions{}).serve()
	c, err := r.certs.Dial(t.Context(), r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := r.talk(c, stun, 14); got != "turn secure=tr" {
		t.Errorf("answer %q", got)
	}
	other := newRig(t, PortOptions{})
	if _, err := r.certs.Dial(t.Context(), other.addr); err == nil || !strings.Contains(err.Error(), errForeign.Error()) {
		t.Errorf("somebody else's port: %v", err)
	}
	expired := *r.certs.Leaf()
	expired.NotAfter = expired.NotBefore
	if err := verifyOurs(&expired, r.certs.now.Load().leaves()); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("expired certificate: %v", err)
	}
}
