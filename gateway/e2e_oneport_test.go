package gateway_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"sallyport/sfu/peer"
	"sallyport/sfu/wire"
)

// TestOnePort: web and media share one TCP port of the delivered binary, and
// none disturbs the other.
func TestOnePort(t *testing.T) {
	p := startProduct(t)
	p.dialPlugin(p.API)
	c := p.talk(peer.TURNTLS, peer.TURNTCP)
	began := time.Now()
	t.Run("curl", p.testCurl)
	t.Run("openssl", p.testOpenSSL)
	t.Run("WebSocket", p.testWebSocket)
	t.Run("TURN by ALPN", p.testALPN)
	t.Run("ICE-TCP", p.testICE)
	p.hears(c.a, c.b, 25)
	p.hears(c.b, c.a, 25)
	if bad := c.harmed(time.Since(began)); bad != "" {
		t.Errorf("the call through TURN meanwhile: %s", bad)
	}
}

func (p *product) testCurl(t *testing.T) {
	needPrograms(t, "curl")
	for _, x := range []struct{ flag, url, want string }{
		{"--http2", "https://" + p.HTTPS, "200 2"},
		{"--http1.1", "https://" + p.HTTPS, "200 1.1"},
		{"--no-alpn", "https://" + p.HTTPS, "200 1.1"},
		{"--http1.1", "http://" + p.HTTPS, "301 1.1"}, // no TLS: sent to where there is
	} {
		out, err := exec.CommandContext(within(t), "curl", "--silent", "--show-error", "--insecure", "--noproxy", "*",
			"--output", "/dev/null", "--write-out", "%{http_code} %{http_version}", x.flag, x.url+"/").CombinedOutput()
		if err != nil || string(out) != x.want {
			t.Errorf("curl %s %s: %v, %s; want %s", x.flag, x.url, err, out, x.want)
		}
	}
}

// testOpenSSL: a protocol of RFC 7443 is selected; one that nobody knows does
// no harm, it is HTTP as without.
func (p *product) testOpenSSL(t *testing.T) {
	needPrograms(t, "openssl")
	for protocol, want := range map[string][]string{
		"stun.turn":          {"ALPN protocol: stun.turn"},
		"stun.nat-discovery": {"ALPN protocol: stun.nat-discovery"},
		"h2":                 {"ALPN protocol: h2"},
		"http/1.1":           {"ALPN protocol: http/1.1", "HTTP/1.1 200 OK"},
		"who-knows":          {"No ALPN negotiated", "HTTP/1.1 200 OK"},
	} {
		command := exec.CommandContext(within(t), "openssl", "s_client", "-connect", p.HTTPS, "-servername", "localhost", "-alpn", protocol)
		if len(want) > 1 {
			command.Args = append(command.Args, "-ign_eof")
			command.Stdin = strings.NewReader("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
		}
		out, _ := command.CombinedOutput() // its exit code tells about our end of the connection
		for _, w := range want {
			if !bytes.Contains(out, []byte(w)) {
				t.Errorf("openssl -alpn %s does not say %q:\n%s", protocol, w, out)
			}
		}
	}
}

func (p *product) testWebSocket(t *testing.T) {
	transport := &http.Transport{TLSClientConfig: insecure("http/1.1")}
	defer transport.CloseIdleConnections()
	for _, path := range []string{"/api/v4/websocket", "/api/v4/websocket/", "/plugins/x/ws"} {
		conn, _, err := websocket.Dial(within(t), "wss://"+p.HTTPS+path, &websocket.DialOptions{
			HTTPClient: &http.Client{Transport: transport}, HTTPHeader: http.Header{"Origin": {"https://" + p.HTTPS}},
		})
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		must(t, conn.Write(within(t), websocket.MessageText, []byte("hello")))
		if kind, got, err := conn.Read(within(t)); err != nil || kind != websocket.MessageText || string(got) != "hello" {
			t.Errorf("%s: %q, %v", path, got, err)
		}
		_ = conn.Close(websocket.StatusNormalClosure, "")
	}
}

// testALPN: TURN is recognised by what is said, whatever was negotiated;
// coturn's client offers http/1.1.
func (p *product) testALPN(t *testing.T) {
	for _, protocol := range []string{"", "stun.turn", "http/1.1", "who-knows"} {
		var offered []string
		if protocol != "" {
			offered = []string{protocol}
		}
		k := p.talkSTUN(t, "tls", offered...)
		k.login("alpn")
		k.want(k.allocate(), 0)
	}
}

// testICE: clients are told that ICE-TCP works on the shared port too, and it
// does for one that cannot reach the media port.
func (p *product) testICE(t *testing.T) {
	walled := target{t: t, Addrs: p.Addrs}
	walled.dialPlugin(p.hideMediaPort(t))
	walled.call = p.call
	one := walled.join(peer.TCP)
	s, err := one.Selected()
	if err != nil || s.Remote.String() != p.HTTPS {
		t.Errorf("media goes to %v, %v; want %s", s, err, p.HTTPS)
	}
	other := walled.join(peer.UDP)
	must(t, other.Unmute(within(t)))
	must(t, one.Unmute(within(t)))
	walled.hears(one, other, 50)
	walled.hears(other, one, 50)
}

// hideMediaPort runs a go-between of plugin and API that moves the server's
// candidate of the TCP media port to one where nobody listens, and returns its
// address.
func (p *product) hideMediaPort(t *testing.T) string {
	_, media, err := net.SplitHostPort(p.MediaTCP)
	must(t, err)
	move := strings.NewReplacer(" "+media+" typ host tcptype", " 9 typ host tcptype").Replace
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		server, _, err := websocket.Dial(ctx, "http://"+p.API+r.URL.Path, &websocket.DialOptions{
			HTTPHeader: http.Header{"Authorization": r.Header["Authorization"]},
		})
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer func() { _ = server.CloseNow() }()
		plugin, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer func() { _ = plugin.CloseNow() }()
		go func() {
			defer cancel()
			carry(ctx, server, plugin, func(b []byte) ([]byte, error) { return b, nil })
		}()
		carry(ctx, plugin, server, func(b []byte) ([]byte, error) {
			e, err := wire.Decode(b)
			if err != nil || e.Type != wire.TypeRTC {
				return b, err
			}
			e.Message.Data = []byte(move(string(e.Message.Data)))
			return e.Append(nil)
		})
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// carry takes messages from one WebSocket to another until either ends.
func carry(ctx context.Context, to, from *websocket.Conn, change func([]byte) ([]byte, error)) {
	from.SetReadLimit(1 << 20)
	for {
		kind, b, err := from.Read(ctx)
		if err != nil {
			return
		}
		if b, err = change(b); err != nil || to.Write(ctx, kind, b) != nil {
			return
		}
	}
}

// get asks for a page over HTTP/1.1 and returns its status.
func (x *target) get(ctx context.Context, path string) (string, error) {
	conn, err := dialTLS(ctx, "", x.HTTPS, "http/1.1")
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", path); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(conn)
	status, _, _ := strings.Cut(string(answer), "\r\n")
	return status, err
}
