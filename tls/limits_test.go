package tls

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"
)

// Whoever does not say what he wants is closed, at every stage.
func TestDeadlines(t *testing.T) {
	const short = 30 * time.Millisecond
	for _, tt := range []struct {
		name    string
		opts    PortOptions
		secure  bool
		send    []byte
		counter string
		labels  []string
	}{
		{"nothing", PortOptions{FirstBytes: short}, false, nil, "sallyport_demux_connections_total", []string{"plain", "silent"}},
		{"part of a header", PortOptions{FirstBytes: short}, false, stun[:7], "sallyport_demux_connections_total", []string{"plain", "silent"}},
		{"half a ClientHello", PortOptions{Handshake: short}, false, hello, "sallyport_tls_handshakes_total", []string{"timeout"}},
		{"nothing inside TLS", PortOptions{Silence: short}, true, nil, "sallyport_demux_connections_total", []string{"none", "silent"}},
		{"rubbish", PortOptions{}, false, []byte{0xFF, 0xFF, 0xFF}, "sallyport_demux_connections_total", []string{"plain", "unknown"}},
		{"a broken ClientHello", PortOptions{}, false, unhex("1603010005 0100000100"), "sallyport_tls_handshakes_total", []string{"error"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, tt.opts).serve()
			var c net.Conn
			if tt.secure {
				c = r.dialTLS()
			} else {
				c = r.dial()
			}
			if _, err := c.Write(tt.send); err != nil {
				t.Fatal(err)
			}
			// An alert may come first; the end of the stream is what matters.
			if _, err := io.Copy(io.Discard, c); isTimeout(err) {
				t.Fatal("still open")
			}
			eventually(t, "counted", func() bool { return r.metric(tt.counter, tt.labels...) == 1 })
			eventually(t, "let go", func() bool { return r.port.pending.size() == 0 })
		})
	}
}

func isTimeout(err error) bool {
	ne, ok := errors.AsType[net.Error](err)
	return ok && ne.Timeout()
}

func TestPerAddressLimit(t *testing.T) {
	r := newRig(t, PortOptions{PerAddress: 2}).serve()
	first := r.dial()
	r.dial()
	eventually(t, "two pending", func() bool { return r.port.pending.size() == 2 })
	if err := closed(r.dial()); err != nil {
		t.Errorf("third connection of the address: %v", err)
	}
	eventually(t, "counted", func() bool { return r.metric("sallyport_demux_refused_total", "address") == 1 })
	r.talk(r.dialFrom("127.0.0.2"), stun, 46) // others are not affected
	r.talk(first, stun, 46)                   // handed over: no longer counted
	eventually(t, "one pending", func() bool { return r.port.pending.size() == 1 })
	r.talk(r.dial(), stun, 46)
}

func TestTotalLimit(t *testing.T) {
	r := newRig(t, PortOptions{Total: 2}).serve()
	r.dial()
	r.dialFrom("127.0.0.2")
	eventually(t, "two pending", func() bool { return r.port.pending.size() == 2 })
	if err := closed(r.dialFrom("127.0.0.3")); err != nil {
		t.Errorf("third connection: %v", err)
	}
	eventually(t, "counted", func() bool { return r.metric("sallyport_demux_refused_total", "total") == 1 })
}

// Handed over or not, an open connection counts until its new owner closes it:
// here net/http, two servers that echo, and the Port itself.
func TestOpenConnectionsPerAddress(t *testing.T) {
	r := newRig(t, PortOptions{OpenPerAddress: 4}).serve()
	h2 := r.dialTLS("h2")
	r.talk(h2, []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"), 9)
	h1 := r.dialTLS("http/1.1")
	r.talk(h1, []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), 15)
	relay := r.dialTLS()
	r.talk(relay, stun, 46)
	plain := r.dial()
	r.talk(plain, []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), 15)
	eventually(t, "all handed over", func() bool { return r.port.pending.size() == 0 })

	for range 2 {
		if err := closed(r.dial()); err != nil {
			t.Errorf("fifth connection of the address: %v", err)
		}
	}
	eventually(t, "counted", func() bool { return r.metric("sallyport_demux_refused_total", "open_address") == 2 })
	r.talk(r.dialFrom("127.0.0.2"), stun, 46) // others are not affected

	for what, c := range map[string]net.Conn{"HTTP/2": h2, "HTTP/1.1": h1, "redirect": plain} {
		c.Close()
		eventually(t, what+" is closed", func() bool { return r.port.open.size() == 4 })
		r.talk(r.dial(), stun, 46)
	}
	if _, err := r.dialFrom("127.0.0.2").Write([]byte{0xFF, 0xFF, 0xFF}); err != nil { // refused by the Port
		t.Fatal(err)
	}
	eventually(t, "nothing is left of rubbish", func() bool {
		return r.metric("sallyport_demux_connections_total", "plain", "unknown") == 1 && r.port.open.size() == 5
	})
}

func TestOpenConnectionsInAll(t *testing.T) {
	r := newRig(t, PortOptions{OpenTotal: 2}).serve()
	r.talk(r.dial(), stun, 46)
	r.talk(r.dialFrom("127.0.0.2"), stun, 46)
	if err := closed(r.dialFrom("127.0.0.3")); err != nil {
		t.Errorf("third connection: %v", err)
	}
	eventually(t, "counted", func() bool { return r.metric("sallyport_demux_refused_total", "open_total") == 1 })
}

// Those that are refused for being too many at once are not counted as open.
func TestRefusedIsNotOpen(t *testing.T) {
	r := newRig(t, PortOptions{PerAddress: 1})
	r.dial()
	for range 3 {
		if err := closed(r.dial()); err != nil {
			t.Error(err)
		}
	}
	if n := r.port.open.size(); n != 1 {
		t.Errorf("%d connections are open, want 1", n)
	}
}

// Whatever the limit of files, something is left for the rest of the process.
func TestOpenTotal(t *testing.T) {
	for files, want := range map[uint64]int{
		0: 0, 256: 128, 1024: 512, 2048: 1024, 4096: 3072, 65536: 49152, 1048576: 786432, 1<<64 - 1: 3 << 28,
	} {
		if got := openTotal(files); got != want {
			t.Errorf("openTotal(%d) = %d, want %d", files, got, want)
		}
	}
	if got, want := (PortOptions{}).withDefaults().OpenTotal, openTotal(maxFiles()); got != want || got <= 0 {
		t.Errorf("the default is %d, want %d", got, want)
	}
}

func TestSource(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.1:5":           "192.0.2.1",
		"[::ffff:192.0.2.1]:5":  "192.0.2.1",
		"[2001:db8::1:2:3:4]:5": "2001:db8::",
		"[fe80::1%eth0]:5":      "fe80::",
	} {
		c := addressed{remote: net.TCPAddrFromAddrPort(netip.MustParseAddrPort(in))}
		if got := source(c); got != netip.MustParseAddr(want) {
			t.Errorf("source(%s) = %s, want %s", in, got, want)
		}
	}
}

type addressed struct {
	net.Conn
	remote net.Addr
}

func (a addressed) RemoteAddr() net.Addr { return a.remote }

// Clients that stop in mid-handshake hold no slot: with a single one, and it
// would be one too many, everybody else still gets in.
func TestStalledHandshakesHoldNoSlot(t *testing.T) {
	r := newRig(t, PortOptions{Running: 1, Waiting: 1}).serve()
	for range 20 {
		c := r.dial()
		if _, err := c.Write(recordHello(t)); err != nil {
			t.Fatal(err)
		}
		// The answer shows that the slot was taken.
		if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
	}
	if n := r.port.pending.size(); n != 20 {
		t.Fatalf("%d handshakes in progress, want 20", n)
	}
	r.talk(r.dialTLS(), stun, 46)
}

// recordHello returns the ClientHello that crypto/tls would send.
func recordHello(t *testing.T) []byte {
	t.Helper()
	ours, theirs := net.Pipe()
	defer ours.Close()
	go func() {
		_ = tls.Client(theirs, &tls.Config{ServerName: "chat.example.com"}).Handshake()
		theirs.Close()
	}()
	b := make([]byte, 4096)
	n, err := ours.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return b[:n]
}

func TestHandshakeLimit(t *testing.T) {
	r := newRig(t, PortOptions{Running: 1, Waiting: 1}).serve()
	if err := r.port.slots.acquire(t.Context()); err != nil {
		t.Fatal(err)
	}
	waits := make(chan error, 1)
	c := tls.Client(r.dial(), r.clientConfig())
	go func() { waits <- c.Handshake() }()
	eventually(t, "one handshake waits", func() bool { return r.port.slots.waiting.Load() == 1 })
	if err := tls.Client(r.dial(), r.clientConfig()).Handshake(); err == nil {
		t.Error("a handshake beyond the limit succeeded")
	}
	eventually(t, "counted as busy", func() bool { return r.metric("sallyport_tls_handshakes_total", "busy") == 1 })
	r.port.slots.release()
	if err := <-waits; err != nil {
		t.Errorf("the handshake that waited: %v", err)
	}
	eventually(t, "all slots free", func() bool { return len(r.port.slots.running) == 0 })
}

// Hundreds of clients that never finish what they began, from several
// addresses: what is kept is bounded, and others are served.
func TestFlood(t *testing.T) {
	r := newRig(t, PortOptions{PerAddress: 64, Total: 200}).serve()
	served := r.dialTLS()
	r.talk(served, stun, 46)
	half := recordHello(t)
	for i := range 600 {
		c := r.dialFrom([]string{"127.0.0.2", "127.0.0.3", "127.0.0.4"}[i%3])
		// Those over the limit are closed already: the error is expected.
		_, _ = c.Write([][]byte{nil, stun[:5], half[:len(half)-1], half}[i%4])
	}
	eventually(t, "all beyond the limits refused", func() bool {
		return r.metric("sallyport_demux_refused_total", "address") == 600-3*64
	})
	if got := r.metric("sallyport_demux_pending_connections"); got != 3*64 {
		t.Errorf("%v connections pending, want %d", got, 3*64)
	}
	r.talk(r.dialTLS("http/1.1"), stun, 46)
	if got := r.talk(served, []byte("still here"), 10); got != "still here" {
		t.Errorf("open connection: %q", got)
	}
}

// A server that does not accept costs its clients the connection, not us the
// memory.
func TestFullQueue(t *testing.T) {
	r := newRig(t, PortOptions{Queue: 1, FirstBytes: 50 * time.Millisecond})
	for range 3 {
		if _, err := r.dial().Write(stun); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "two dropped", func() bool { return r.metric("sallyport_demux_refused_total", "queue") == 2 })
	if _, err := r.port.TURN().Accept(); err != nil {
		t.Errorf("the queued one: %v", err)
	}
}

func TestQueueClose(t *testing.T) {
	q := newQueue(&net.TCPAddr{}, 4)
	ours, theirs := net.Pipe()
	if !q.push(t.Context(), theirs) {
		t.Fatal("push failed")
	}
	q.Close()
	if _, err := ours.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("queued connection after Close: %v, want EOF", err)
	}
	if q.push(t.Context(), theirs) {
		t.Error("push succeeded after Close")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if newQueue(&net.TCPAddr{}, 0).push(ctx, theirs) {
		t.Error("push succeeded without room")
	}
	if _, err := q.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after Close: %v", err)
	}
}
