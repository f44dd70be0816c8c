package tls

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mholt/acmez/v3/acme"
)

// The CA says when to renew: when it moves the window, as it does before it
// revokes, we follow, and the order says what it replaces.
func TestACMEFollowsTheSuggestedWindow(t *testing.T) {
	ln := listen(t)
	p := startPebble(t, pebbleOptions{tlsPort: portOf(ln.Addr()), httpPort: 1})
	now := time.Now().Truncate(time.Second)
	p.window.Store(&[2]time.Time{now.Add(1000 * time.Hour), now.Add(1001 * time.Hour)})
	certs, a := acmeCerts(t, p, 0, portOf(ln.Addr()))
	a.every = 50 * time.Millisecond
	startRig(t, ln, certs, PortOptions{})
	eventually(t, "a certificate", func() bool { return certs.Status().Ready })
	before := certs.Leaf()
	if got := *p.replaces.Load(); got != "" {
		t.Errorf("the first order replaces %q", got)
	}
	p.window.Store(&[2]time.Time{now.Add(-2 * time.Hour), now.Add(-time.Hour)})
	eventually(t, "renewed", func() bool { return !certs.Leaf().Equal(before) })
	want, err := acme.ARIUniqueIdentifier(before)
	if got := *p.replaces.Load(); got != want {
		t.Errorf("the order replaces %q, want %q (%v)", got, want, err)
	}
}

// Two replicas start at once with one storage: one of them orders, both serve,
// and the CA may come to either.
func TestACMETwoReplicas(t *testing.T) {
	ln := listen(t)
	p := startPebble(t, pebbleOptions{tlsPort: portOf(ln.Addr()), httpPort: 1})
	one, _ := acmeCerts(t, p, 0, portOf(ln.Addr()))
	other, _ := acmeCerts(t, p, 0, portOf(ln.Addr()))
	second := startRig(t, listen(t), other, PortOptions{}).serve()
	first := startRig(t, ln, one, PortOptions{}).serve()
	eventually(t, "both have a certificate", func() bool { return one.Status().Ready && other.Status().Ready })
	if !one.Leaf().Equal(other.Leaf()) || p.orders.Load() != 1 {
		t.Errorf("%d orders; the same certificate: %t", p.orders.Load(), one.Leaf().Equal(other.Leaf()))
	}
	for _, r := range []*rig{first, second} {
		if err := tls.Client(r.dial(), p.trusting(domain)).Handshake(); err != nil {
			t.Error(err)
		}
	}
}

// What cannot be written is told with its path. What can be read is served, and
// once the fault is gone all goes on by itself.
func TestACMEStorageCannotBeWritten(t *testing.T) {
	ln := listen(t)
	p := startPebble(t, pebbleOptions{tlsPort: portOf(ln.Addr()), httpPort: 1})
	certs, _ := acmeCerts(t, p, 0, portOf(ln.Addr()))
	first := startRig(t, listen(t), certs, PortOptions{})
	second, _ := acmeCerts(t, p, 0, portOf(ln.Addr()), "calls.example.com")
	startRig(t, ln, second, PortOptions{})
	eventually(t, "two certificates", func() bool { return second.Status().Ready })
	first.stop()

	// A mode would not stop root.
	locks := filepath.Join(p.config.Storage, "locks")
	if err := os.RemoveAll(locks); err != nil {
		t.Fatal(err)
	}
	write(t, locks, nil)
	third, _ := acmeCerts(t, p, 0, portOf(ln.Addr()), "files.example.com")
	r := startRig(t, listen(t), third, PortOptions{}).serve()
	eventually(t, "told", func() bool { return strings.Contains(third.Status().LastError, locks) })
	if err := tls.Client(r.dial(), p.trusting(domain)).Handshake(); err != nil {
		t.Errorf("what is stored: %v", err)
	}
	if err := os.Remove(locks); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the third as well", func() bool { s := third.Status(); return s.Ready && s.LastError == "" })
}

// Keys of session tickets are made anew every day, and forgotten after a week.
func TestTicketKeysRotate(t *testing.T) {
	r := newRig(t, PortOptions{}).serve()
	base := r.certs.current.Load().base
	begin := time.Now()
	var sessions []*tls.ClientSessionState
	visit := func(session *tls.ClientSessionState) (resumed bool) {
		t.Helper()
		cfg := r.clientConfig()
		cfg.ClientSessionCache = &oneSession{session, &sessions}
		c := tls.Client(r.dial(), cfg)
		r.talk(c, stun, 46)
		return c.ConnectionState().DidResume
	}
	visit(nil)
	old := sessions[len(sessions)-1]
	for _, tt := range []struct {
		after time.Duration
		want  bool
	}{{time.Hour, true}, {30 * time.Hour, true}, {60 * time.Hour, true}, {9 * 24 * time.Hour, false}} {
		// Between connections nobody reads it.
		base.Time = func() time.Time { return begin.Add(tt.after) }
		if got := visit(old); got != tt.want {
			t.Errorf("the first session is resumed after %s: %t", tt.after, got)
		}
	}
}

// oneSession offers one session and keeps all that come.
type oneSession struct {
	offered *tls.ClientSessionState
	got     *[]*tls.ClientSessionState
}

func (o *oneSession) Get(string) (*tls.ClientSessionState, bool) { return o.offered, o.offered != nil }

func (o *oneSession) Put(_ string, s *tls.ClientSessionState) {
	if s != nil {
		*o.got = append(*o.got, s)
	}
}
