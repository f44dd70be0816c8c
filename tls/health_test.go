package tls

import (
	"errors"
	"testing"
	"time"
)

// Each name has its own trouble: one that is well clears no other's.
func TestHealthIsKeptByName(t *testing.T) {
	var h health
	one, two := errors.New("one"), errors.New("two")
	over := false
	h.set("a", one, nil)
	h.set("b", two, func() bool { return over })
	h.set("c", nil, nil)
	soon := time.Now().Add(time.Minute)
	h.retry("a", soon)
	h.retry("b", soon.Add(time.Minute))
	h.retry("c", soon.Add(-time.Minute)) // nothing is wrong with it
	if f := h.last(); f.err != two || !f.next.Equal(soon) {
		t.Errorf("last fault %v, next attempt %v", f.err, f.next)
	}
	over = true
	if f := h.last(); f.err != one {
		t.Errorf("last fault %v after the other was over", f.err)
	}
	h.set("a", nil, nil)
	if f := h.last(); f.err != nil || !f.next.IsZero() {
		t.Errorf("%v after all is well", f.err)
	}
}

// Ready means that clients are content, not that there is some certificate.
func TestReadyNeedsAValidCertificate(t *testing.T) {
	for name, tt := range map[string]struct {
		notAfter time.Time
		names    []string
		want     bool
	}{
		"good":          {time.Now().Add(time.Hour), []string{"chat.example.com"}, true},
		"no names":      {time.Now().Add(time.Hour), nil, true},
		"expired":       {time.Now().Add(-time.Hour), []string{"chat.example.com"}, false},
		"another name":  {time.Now().Add(time.Hour), []string{"mattermost.example.com"}, false},
		"one name only": {time.Now().Add(time.Hour), []string{"chat.example.com", "calls.example.com"}, false},
	} {
		d := newDisk(t, "one")
		d.replace(makePair(t, "chat.example.com", tt.notAfter))
		c, err := NewCertificates(d.config(), tt.names, CertificateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Status().Ready; got != tt.want {
			t.Errorf("%s: ready %v", name, got)
		}
	}
}
