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

func TestSource(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.1:5":           "192.0.2.1",
		"[::ffff:192.0.2.1]:5":  "192.0.2.1",
		"[2001:db8::1:2:3:4]:5": "2001:db8::",
		"[fe80::1%eth0]:5":      "fe80::",
	} {
		c := addressed{remote: net.TCPAddrFromAddrPort(netip.MustParseAddrPort(in))}
		if got := source(c, nil); got != netip.MustParseAddr(want) {
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

// Of handshakes whose clients do not answer, the oldest makes room for the
// newest, so that honest ones succeed however many others there are.
func TestUnansweredHandshakesMakeRoom(t *testing.T) {
	r := newRig(t, PortOptions{Unanswered: 3}).serve()
	var all []net.Conn
	for range 8 {
		c := r.dial()
		if _, err := c.Write(recordHello(t)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 5)); err != nil { // it waits for us from now on
			t.Fatal(err)
		}
		all = append(all, c)
		eventually(t, "no more than three wait", func() bool { return r.port.pending.size() == min(len(all), 3) })
	}
	if _, err := io.Copy(io.Discard, all[0]); isTimeout(err) {
		t.Error("the first is still open")
	}
	r.talk(r.dialTLS(), stun, 46)
	eventually(t, "counted", func() bool { return r.metric("sallyport_tls_handshakes_total", "displaced") == 6 })
	r.port.unanswered.mu.Lock()
	defer r.port.unanswered.mu.Unlock()
	if n := r.port.unanswered.conns.Len(); n != 2 {
		t.Errorf("%d handshakes wait, want 2", n)
	}
}

// What a client announces costs nothing before it comes.
func TestRecordsTakeNoMoreThanHasCome(t *testing.T) {
	for name, tt := range map[string]struct{ sent, want int }{
		"as long as announced": {1500, 1500},
		"as long as can be":    {1<<14 + 256, 1<<14 + 256},
		"longer than can be":   {1<<14 + 257, 0}, // crypto/tls refuses it by its header
	} {
		t.Run(name, func(t *testing.T) {
			ours, theirs := net.Pipe()
			defer ours.Close()
			go func() {
				defer theirs.Close()
				_, _ = theirs.Write(make([]byte, tt.sent))
			}()
			c := &peeked{Conn: ours, head: []byte{0x16, 3, 1, byte(tt.sent >> 8), byte(tt.sent)}}
			if err := c.readRecord(); err != nil {
				t.Fatal(err)
			}
			if got := len(c.head) - 5; got != tt.want {
				t.Errorf("read %d bytes, want %d", got, tt.want)
			}
			if got := cap(c.head); got > 3*len(c.head)+1024 {
				t.Errorf("took %d bytes for %d", got, len(c.head))
			}
		})
	}
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
	r := newRig(t, PortOptions{Queue: 1, FirstBytes: 2 * time.Second})
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
