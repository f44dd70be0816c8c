package tls

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"
)

// startBeside runs a Port beside r's, with a server that says whom it serves.
func startBeside(t *testing.T, r *rig) (addr string) {
	t.Helper()
	ln := listen(t)
	beside := r.port.Beside(ln)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.RemoteAddr)
	})}
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() {
		if err := beside.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	all.Go(func() { _ = server.Serve(beside.Plain()) })
	t.Cleanup(func() { cancel(); _ = server.Close(); all.Wait() })
	return ln.Addr().String()
}

func dialAt(t *testing.T, from, addr string) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	return c
}

var get = []byte("GET / HTTP/1.0\r\n\r\n")

// The port beside counts with the first one: strangers cannot use up on it what
// that one keeps free.
func TestBesideSharesLimits(t *testing.T) {
	r := newRig(t, PortOptions{OpenPerAddress: 2, OpenTotal: 3}).serve()
	addr := startBeside(t, r)
	first := dialAt(t, "127.0.0.1", addr)
	r.talk(r.dial(), stun, 46)
	eventually(t, "both are counted", func() bool { return r.port.open.size() == 2 })
	if err := closed(dialAt(t, "127.0.0.1", addr)); err != nil {
		t.Errorf("third of one address: %v", err)
	}
	dialAt(t, "127.0.0.2", addr)
	eventually(t, "another is counted", func() bool { return r.port.open.size() == 3 })
	if err := closed(dialAt(t, "127.0.0.3", addr)); err != nil {
		t.Errorf("fourth in all: %v", err)
	}
	r.talk(first, get, 12)
	eventually(t, "the answered one is gone", func() bool { return r.port.open.size() == 2 })
	for _, limit := range []string{"open_address", "open_total"} {
		if n := r.metric("sallyport_demux_refused_total", limit); n != 1 {
			t.Errorf("%v refused for %s", n, limit)
		}
	}
}

func TestBesideReadsProxyHeaders(t *testing.T) {
	r := newRig(t, trusting(PortOptions{})).serve()
	addr := startBeside(t, r)
	const header = "PROXY TCP4 192.0.2.1 198.51.100.1 56324 80\r\n"
	c := dialAt(t, "127.0.0.2", addr)
	r.write(c, append([]byte(header), get...))
	if b, err := io.ReadAll(c); err != nil || string(b[max(0, len(b)-15):]) != "192.0.2.1:56324" {
		t.Errorf("behind a trusted proxy: %q, %v", b, err)
	}
	c = dialAt(t, "127.0.0.1", addr)
	r.write(c, append([]byte(header), get...))
	if b, _ := io.ReadAll(c); len(b) > 0 {
		t.Errorf("a stranger's header: %q", b)
	}
}

func TestBesideServesPlainHTTPOnly(t *testing.T) {
	r := newRig(t, PortOptions{}).serve()
	addr := startBeside(t, r)
	for name, b := range map[string][]byte{"TLS": hello[:3], "TURN": stun, "ICE-TCP": framed} {
		c := dialAt(t, "127.0.0.1", addr)
		r.write(c, b)
		if got, _ := io.ReadAll(c); len(got) > 0 {
			t.Errorf("%s: answered %q", name, got)
		}
	}
	if n := r.metric("sallyport_demux_connections_total", "plain", "unknown"); n != 3 {
		t.Errorf("%v counted as unknown", n)
	}
	r.talk(r.dial(), stun, 46)
	for at, want := range map[string][2]float64{addr: {3, 0}, r.addr: {0, 1}} { // by port
		_, port, _ := net.SplitHostPort(at)
		unknown := r.metric("sallyport_demux_connections_total", "plain", "unknown", ":"+port)
		turn := r.metric("sallyport_demux_connections_total", "plain", "turn", ":"+port)
		if got := [2]float64{unknown, turn}; got != want {
			t.Errorf("on port %s: unknown and TURN %v, want %v", port, got, want)
		}
	}
}

// TestShut: who is in stays and who is coming in gets in, but nobody new.
func TestShut(t *testing.T) {
	r := newRig(t, PortOptions{}).serve()
	in := r.dial()
	r.talk(in, stun, 46)
	coming := r.dial()
	eventually(t, "the second is at the door", func() bool { return r.port.pending.size() == 1 })
	shut := make(chan struct{})
	go func() { r.port.Shut(t.Context()); close(shut) }()
	eventually(t, "the door is shut", func() bool {
		c, err := net.Dial("tcp", r.addr)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	r.talk(in, stun, len(stun)) // without the line about it
	r.talk(coming, stun, 46)
	<-shut
}
