package gateway_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"github.com/coder/websocket"

	"sallyport/gateway"
	"sallyport/sfu/peer"
	"sallyport/sfu/rtcd"
	"sallyport/turn"
)

// The secrets of a gateway under test.
const (
	e2eTURNSecret = "a secret that the Calls plugin knows"
	e2eClient     = "mattermost"
	e2eClientKey  = "0123456789abcdef0123456789abcdef"
)

// patience is how long anything that ought to happen may take on a busy
// machine.
const patience = 45 * time.Second

// A target is a running gateway, in this process or one of its own, as the
// world sees it: its addresses, and one call in it.
type target struct {
	gateway.Addrs
	t      *testing.T
	plugin *peer.Mux // the Calls plugin's connection
	call   string
}

// dialPlugin connects to the API as the Calls plugin does. api is host:port.
func (x *target) dialPlugin(api string) {
	x.t.Helper()
	var err error
	x.plugin, err = peer.DialMux(within(x.t), peer.LinkConfig{
		URL: "http://" + api, ClientID: e2eClient, AuthKey: e2eClientKey, NoRegister: true,
	})
	if err != nil {
		x.t.Fatal(err)
	}
	x.t.Cleanup(func() { _ = x.plugin.Close() })
	x.call = peer.NewID()
}

// join brings a participant into the call over a path.
func (x *target) join(path peer.Path) *peer.Peer {
	x.t.Helper()
	p, err := x.tryJoin(path)
	if err != nil {
		x.t.Fatal(err)
	}
	if s, err := p.Selected(); err != nil || s.Path != path {
		x.t.Fatalf("media takes %v, %v; want %s", s, err, path)
	}
	return p
}

func (x *target) tryJoin(path peer.Path) (*peer.Peer, error) {
	p, err := peer.Join(within(x.t), x.plugin, x.participant(path))
	if err == nil {
		x.t.Cleanup(func() { _ = p.Close() })
	}
	return p, err
}

// participant describes one in the call, with a TURN credential of his own.
func (x *target) participant(path peer.Path) peer.Config {
	name, password := turn.Credentials([]byte(e2eTURNSecret), peer.NewID(), time.Now().Add(time.Hour))
	urls := []string{"turn:" + x.UDP + "?transport=udp", "turn:" + x.HTTPS + "?transport=tcp", "turns:" + x.HTTPS + "?transport=tcp"}
	return peer.Config{
		Call: x.call, Path: path,
		ICEServers: []peer.ICEServer{{URLs: urls, Username: name, Credential: password}},
		DialTURN: func(_, _ string) (net.Conn, error) {
			if path == peer.TURNTLS {
				return dialTLS(x.t.Context(), "", x.HTTPS) // no ALPN, as browsers do
			}
			return net.Dial("tcp", x.HTTPS)
		},
	}
}

// hears waits until p has n further packets of what from says.
func (x *target) hears(p, from *peer.Peer, n uint64) *peer.Track {
	x.t.Helper()
	track, err := p.WaitTrack(within(x.t), "voice", from.Session())
	if err == nil {
		err = track.WaitPackets(within(x.t), track.Stats().Packets+n)
	}
	if err != nil {
		x.t.Fatal(err)
	}
	return track
}

// A talk is two participants who speak and hear each other, and others who listen.
type talk struct {
	a, b *peer.Peer
	ears []*peer.Track // what they hear
	seen []peer.TrackStats
}

// talk starts one over two paths.
func (x *target) talk(one, other peer.Path) *talk {
	x.t.Helper()
	c := &talk{a: x.join(one), b: x.join(other)}
	must(x.t, c.a.Unmute(within(x.t)))
	must(x.t, c.b.Unmute(within(x.t)))
	c.ears = []*peer.Track{x.hears(c.a, c.b, 25), x.hears(c.b, c.a, 25)}
	c.mark()
	return c
}

// listen adds one who listens.
func (c *talk) listen(x *target, path peer.Path) {
	x.t.Helper()
	p := x.join(path)
	c.ears = append(c.ears, x.hears(p, c.a, 25), x.hears(p, c.b, 25))
	c.mark()
}

// mark begins what harmed judges.
func (c *talk) mark() {
	c.seen = nil
	for _, track := range c.ears {
		c.seen = append(c.seen, track.Stats())
	}
}

// harmed says what was wrong with the talk since mark, "" for nothing.
func (c *talk) harmed(since time.Duration) string {
	for i, track := range c.ears {
		now := track.Stats()
		packets, lost := now.Packets-c.seen[i].Packets, now.Lost-c.seen[i].Lost
		// 50 packets are sent each second; a busy machine may send them late.
		if track.Ended() || lost*100 > packets+lost || float64(packets) < 25*since.Seconds() {
			return fmt.Sprintf("%d packets heard in %s, %d lost", packets, since, lost)
		}
	}
	return ""
}

// startHere runs a gateway in this process, on free ports, until the test ends.
func startHere(t *testing.T, edit func(*gateway.Config)) (*target, *gateway.Gateway) {
	t.Helper()
	cfg := gateway.Default()
	cfg.Proxy.Spool.Dir = ""
	cfg.Domain = "localhost"
	cfg.Upstream = []string{standIn(t).URL}
	cfg.Listen = gateway.Listen{HTTPS: "127.0.0.1:0", HTTP: "127.0.0.1:0", UDP: "127.0.0.1:0"}
	cfg.TLS.Source = gateway.SourceSelfSigned
	cfg.TURN.SecretFile = "turn"
	cfg.SFU.UDP, cfg.SFU.TCP = "127.0.0.1:0", "127.0.0.1:0"
	cfg.SFU.API = rtcd.Config{Listen: "127.0.0.1:0", Clients: []rtcd.Client{{ID: e2eClient, KeyFile: "client"}}}
	cfg.Admin.Listen, cfg.Admin.Socket = "127.0.0.1:0", ""
	if edit != nil {
		edit(&cfg)
	}
	log := newLogBook()
	g, err := gateway.New(cfg, gateway.Options{
		Logger: slog.New(slog.NewJSONHandler(log, nil)),
		ReadFile: func(name string) ([]byte, error) {
			secret, known := map[string]string{"turn": e2eTURNSecret, "client": e2eClientKey}[name]
			if !known {
				return nil, os.ErrNotExist
			}
			return []byte(secret), nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		if t.Failed() {
			t.Logf("log of the gateway:\n%s", log)
		}
	})
	if _, err := log.await(within(t), `"msg":"serving"`); err != nil {
		t.Fatal(err)
	}
	return &target{Addrs: g.Addrs(), t: t}, g
}

// standIn is what stands where Mattermost would: a page, and a WebSocket that
// echoes on any other path.
func standIn(t *testing.T) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(page))
	t.Cleanup(s.Close)
	return s
}

// page is what the stand-in serves.
func page(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") == "" {
		_, _ = io.WriteString(w, "<title>Mattermost</title>")
		return
	}
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer func() { _ = conn.CloseNow() }()
	for {
		kind, message, err := conn.Read(r.Context())
		if err != nil || conn.Write(r.Context(), kind, message) != nil {
			return
		}
	}
}

func insecure(protocols ...string) *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, ServerName: "localhost", NextProtos: protocols}
}

// dialTLS connects from a local IP address, "" for any, and finishes the
// handshake.
func dialTLS(ctx context.Context, from, addr string, protocols ...string) (*tls.Conn, error) {
	d := tls.Dialer{NetDialer: &net.Dialer{}, Config: insecure(protocols...)}
	if from != "" {
		d.NetDialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return conn.(*tls.Conn), nil
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
