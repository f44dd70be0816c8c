package tls

import (
	"context"
	"net"
	"sync"
	"testing"
)

// officeConns is what 500 people behind one address open when they join the
// same call: each client tries several ways at once.
const officeConns = 4 * 500

// An office that joins at once runs into no limit by address.
func TestOfficeBehindOneAddress(t *testing.T) {
	r := newRig(t, PortOptions{}).serve()
	var conns []net.Conn
	for range officeConns {
		conns = append(conns, r.dial())
	}
	eventually(t, "all of them pending", func() bool { return r.port.pending.size() == officeConns })
	for _, c := range conns {
		if _, err := c.Write(stun); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range conns {
		r.talk(c, nil, 46)
		c.Close()
	}
	for _, limit := range []string{"address", "total", "open_address", "open_total", "queue"} {
		if n := r.metric("sallyport_demux_refused_total", limit); n != 0 {
			t.Errorf("%v refused by limit %q", n, limit)
		}
	}
}

// And all of its handshakes may wait for their turn.
func TestOfficeHandshakes(t *testing.T) {
	o := PortOptions{Running: 1}.withDefaults()
	s := newSlots(o.Running, o.Waiting)
	if err := s.acquire(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var all sync.WaitGroup
	defer all.Wait()
	for range officeConns {
		all.Go(func() {
			if err := s.acquire(ctx); err != nil {
				t.Errorf("handshake: %v", err)
				return
			}
			s.release()
		})
	}
	eventually(t, "all of them waiting", func() bool { return s.waiting.Load() == officeConns || t.Failed() })
	s.release()
}
