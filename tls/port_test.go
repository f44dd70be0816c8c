package tls

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"
)

const request = "GET /x HTTP/1.1\r\nHost: chat.example.com\r\nConnection: close\r\n\r\n"

// Every way to arrive, on one port.
func TestEveryProtocolOnOnePort(t *testing.T) {
	r := newRig(t, PortOptions{}).serve()
	for _, tt := range []struct {
		name    string
		secure  bool
		alpn    []string
		send    []byte
		want    string
		chosen  string // ALPN the server selects
		counted [2]string
	}{
		{"HTTP, ALPN http/1.1", true, []string{"http/1.1"}, []byte(request), `HTTP/1.1 alpn="http/1.1" host=chat.example.com`, "http/1.1", [2]string{"http/1.1", "http"}},
		{"HTTP, no ALPN", true, nil, []byte(request), `HTTP/1.1 alpn="" host=chat.example.com`, "", [2]string{"none", "http"}},
		{"HTTP, unknown ALPN", true, []string{"foo"}, []byte(request), `HTTP/1.1 alpn="" host=chat.example.com`, "", [2]string{"none", "http"}},
		{"HTTP, unknown and known ALPN", true, []string{"foo", "http/1.1"}, []byte(request), `HTTP/1.1 alpn="http/1.1"`, "http/1.1", [2]string{"http/1.1", "http"}},
		{"HTTP, ALPN stun.turn", true, []string{"stun.turn"}, []byte(request), `HTTP/1.1 alpn="stun.turn"`, "stun.turn", [2]string{"stun.turn", "http"}},
		{"TURN, no ALPN, as Chromium", true, nil, stun, "turn secure=true tcp=true\n" + string(stun), "", [2]string{"none", "turn"}},
		{"TURN, ALPN http/1.1, as coturn's client", true, []string{"http/1.1", "stun.turn"}, stun, "turn secure=true tcp=true\n" + string(stun), "http/1.1", [2]string{"http/1.1", "turn"}},
		{"TURN, ALPN stun.turn", true, []string{"stun.turn"}, stun, "turn secure=true tcp=true\n" + string(stun), "stun.turn", [2]string{"stun.turn", "turn"}},
		{"TURN, ALPN stun.nat-discovery", true, []string{"stun.nat-discovery"}, stun, "turn secure=true", "stun.nat-discovery", [2]string{"stun.nat-discovery", "turn"}},
		{"TURN, unknown ALPN", true, []string{"foo"}, stun, "turn secure=true", "", [2]string{"none", "turn"}},
		{"garbage inside TLS", true, nil, []byte("\xFF\x00\r\n\r\n"), "HTTP/1.1 400 Bad Request", "", [2]string{"none", "http"}},
		{"TURN over TCP", false, nil, stun, "turn secure=false tcp=true\n" + string(stun), "", [2]string{"plain", "turn"}},
		{"ICE-TCP", false, nil, framed, "ice secure=false tcp=true\n" + string(framed), "", [2]string{"plain", "ice"}},
		{"plain HTTP", false, nil, []byte(request), "HTTP/1.1 308 Permanent Redirect\r\n", "", [2]string{"plain", "redirect"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := r.metric("sallyport_demux_connections_total", tt.counted[0], tt.counted[1])
			var c net.Conn
			if tt.secure {
				tc := r.dialTLS(tt.alpn...)
				if got := tc.ConnectionState().NegotiatedProtocol; got != tt.chosen {
					t.Errorf("negotiated %q, want %q", got, tt.chosen)
				}
				c = tc
			} else {
				c = r.dial()
			}
			if _, err := c.Write(tt.send); err != nil {
				t.Fatal(err)
			}
			if got := readUntil(t, c, tt.want); !strings.Contains(got, tt.want) {
				t.Errorf("answer %q, want %q in it", got, tt.want)
			}
			if got := r.metric("sallyport_demux_connections_total", tt.counted[0], tt.counted[1]); got != before+1 {
				t.Errorf("counted %v connections of %v, want %v", got, tt.counted, before+1)
			}
		})
	}
}

// readUntil reads from c until want was read or the stream ends.
func readUntil(t *testing.T, c net.Conn, want string) string {
	t.Helper()
	var got []byte
	b := make([]byte, 4096)
	for !bytes.Contains(got, []byte(want)) {
		n, err := c.Read(b)
		got = append(got, b[:n]...)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("read: %v after %q", err, got)
		}
	}
	return string(got)
}

// A browser: net/http's own client, which insists on a valid certificate.
func TestHTTPClient(t *testing.T) {
	r := newRig(t, PortOptions{}).serve()
	for proto, want := range map[string]string{"h2": `HTTP/2.0 alpn="h2"`, "http/1.1": `HTTP/1.1 alpn="http/1.1"`} {
		t.Run(proto, func(t *testing.T) {
			tr := &http.Transport{
				DialContext:       func(context.Context, string, string) (net.Conn, error) { return net.Dial("tcp", r.addr) },
				TLSClientConfig:   r.clientConfig(proto),
				ForceAttemptHTTP2: proto == "h2",
			}
			defer tr.CloseIdleConnections()
			resp, err := (&http.Client{Transport: tr}).Post("https://chat.example.com/", "", bytes.NewReader(make([]byte, 100_000)))
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			got, err := io.ReadAll(resp.Body)
			if err != nil || string(got) != want+" host=chat.example.com body=100000\n" {
				t.Errorf("got %q, %v; want %q", got, err, want)
			}
		})
	}
}

// A WebSocket is a hijacked connection: what was peeked must not be lost or
// repeated.
func TestUpgrade(t *testing.T) {
	r := newRig(t, PortOptions{}).serve()
	c := r.dialTLS("http/1.1")
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nhello")
	br := bufio.NewReader(c)
	resp, err := http.ReadResponse(br, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(resp, err)
	}
	fmt.Fprint(c, " world")
	got := make([]byte, 11)
	if _, err := io.ReadFull(br, got); err != nil || string(got) != "hello world" {
		t.Errorf("got %q, %v", got, err)
	}
}

// dribble is a connection that sends one byte per segment.
type dribble struct{ net.Conn }

func (d dribble) Write(b []byte) (int, error) {
	for i := range b {
		if _, err := d.Conn.Write(b[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(b), nil
}

func TestDribbledBytes(t *testing.T) {
	r := newRig(t, PortOptions{}).serve()
	c := tls.Client(dribble{r.dial()}, r.clientConfig())
	if got := r.talk(c, stun, 46); got != "turn secure=true tcp=true\n"+string(stun) {
		t.Errorf("over TLS: %q", got)
	}
	if got := r.talk(dribble{r.dial()}, stun, 47); got != "turn secure=false tcp=true\n"+string(stun) {
		t.Errorf("over TCP: %q", got)
	}
	if got := r.talk(dribble{r.dial()}, framed, 26); got != "ice secure=false tcp=true\n" {
		t.Errorf("ICE-TCP: %q", got)
	}
}

// Session tickets work, also for clients whose ALPN we do not know.
func TestResumption(t *testing.T) {
	r := newRig(t, PortOptions{}).serve()
	for _, alpn := range []string{"stun.turn", "foo"} {
		cfg := r.clientConfig(alpn)
		cfg.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		for i := range 2 {
			c := tls.Client(r.dial(), cfg)
			r.talk(c, stun, 46) // reading takes in the ticket
			if got := c.ConnectionState().DidResume; got != (i == 1) {
				t.Errorf("ALPN %s, connection %d: resumed %t", alpn, i, got)
			}
		}
	}
}

func TestMinVersion(t *testing.T) {
	r := newRig(t, PortOptions{}).serve()
	old := r.clientConfig()
	old.MaxVersion = tls.VersionTLS12
	if err := tls.Client(r.dial(), old).Handshake(); err != nil {
		t.Errorf("TLS 1.2 by default: %v", err)
	}
	if err := r.certs.Reload(Config{Source: SourceSelfSigned, MinVersion: "1.3"}, Secrets{}); err != nil {
		t.Fatal(err)
	}
	if err := tls.Client(r.dial(), old).Handshake(); err == nil {
		t.Error("TLS 1.2 accepted after min_version 1.3")
	}
	for _, cfg := range []Config{{Source: SourceSelfSigned, MinVersion: "1.1"}, {Source: SourceFiles}} {
		if r.certs.Reload(cfg, Secrets{}) == nil {
			t.Errorf("Reload(%+v) succeeded", cfg)
		}
	}
	r.dialTLS()
}

// The tools that operators use.
func TestPrograms(t *testing.T) {
	r := newRig(t, PortOptions{}).serve()
	for _, tt := range []struct{ want, program, args string }{
		{"ALPN protocol: stun.turn", "openssl", "s_client -connect ADDR -alpn stun.turn"},
		{"ALPN protocol: http/1.1", "openssl", "s_client -connect ADDR -alpn foo,http/1.1"},
		{"No ALPN negotiated", "openssl", "s_client -connect ADDR -alpn foo"},
		{`HTTP/2.0 alpn="h2"`, "curl", "-sk --noproxy * --http2 https://ADDR/"},
		{`HTTP/1.1 alpn="http/1.1"`, "curl", "-sk --noproxy * --http1.1 https://ADDR/"},
		{`HTTP/1.1 alpn=""`, "curl", "-sk --noproxy * --no-alpn https://ADDR/"},
		{"308 Permanent Redirect", "curl", "-si --noproxy * http://ADDR/"},
	} {
		t.Run(tt.program+" "+tt.args, func(t *testing.T) {
			if _, err := exec.LookPath(tt.program); err != nil {
				t.Skipf("NOT TESTED: %s is not installed", tt.program)
			}
			out, err := exec.Command(tt.program, strings.Fields(strings.ReplaceAll(tt.args, "ADDR", r.addr))...).CombinedOutput()
			if !strings.Contains(string(out), tt.want) {
				t.Errorf("want %q in: %s (%v)", tt.want, out, err)
			}
		})
	}
}

// After Run has ended, what was handed over lives on, what was not is closed,
// and no goroutine is left.
func TestRunEnds(t *testing.T) {
	r := newRig(t, PortOptions{})
	kept := r.dialTLS()
	fmt.Fprint(kept, "handed over")
	server, err := r.port.HTTP().Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	queued, silent, mute := r.dial(), r.dial(), r.dialTLS()
	if _, err := queued.Write(stun); err != nil {
		t.Fatal(err)
	}
	eventually(t, "one queued, two pending", func() bool {
		return len(r.port.turn.conns) == 1 && r.port.pending.size() == 2
	})
	r.stop()

	for name, c := range map[string]net.Conn{"queued": queued, "silent": silent, "silent inside TLS": mute} {
		if err := closed(c); err != nil {
			t.Errorf("%s connection: %v", name, err)
		}
	}
	got := make([]byte, 11)
	if _, err := io.ReadFull(server, got); err != nil || string(got) != "handed over" {
		t.Errorf("the accepted connection was touched: %q, %v", got, err)
	}
	for _, ln := range []net.Listener{r.port.HTTP(), r.port.Plain(), r.port.TURN(), r.port.ICE()} {
		if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept after the end: %v", err)
		}
	}
	if left := ourGoroutines(); left != "" {
		t.Errorf("goroutines left:\n%s", left)
	}
}

// ourGoroutines returns the stacks of goroutines that run code of this package
// or of the ACME library, tests aside. They have a moment to end.
func ourGoroutines() string {
	var left []string
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		left = nil
		buf := make([]byte, 1<<20)
		for g := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
			if strings.Contains(g, "created by sallyport/tls.(*") {
				left = append(left, g)
			}
		}
		if left == nil {
			break
		}
	}
	return strings.Join(left, "\n\n")
}

// The socket failing is an error; a passing failure of Accept is not.
func TestAcceptFails(t *testing.T) {
	r := newRig(t, PortOptions{})
	r.stop()
	ln := &flaky{Listener: listen(t), fail: 1}
	p := NewPort(ln, r.certs, PortOptions{})
	done := make(chan error, 1)
	go func() { done <- p.Run(t.Context()) }()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write(stun); err != nil {
		t.Fatal(err)
	}
	if _, err := p.TURN().Accept(); err != nil {
		t.Errorf("after a passing failure: %v", err)
	}
	ln.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Run = %v, want that the socket is closed", err)
	}
}

// flaky is a listener whose first Accepts fail.
type flaky struct {
	net.Listener
	fail int
}

func (f *flaky) Accept() (net.Conn, error) {
	if f.fail > 0 {
		f.fail--
		return nil, errors.New("too many open files")
	}
	return f.Listener.Accept()
}
