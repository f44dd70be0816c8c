package gateway_test

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/pion/stun"

	"sallyport/gateway"
)

// A pair is a certificate in two files.
type pair struct{ cert, key string }

// replace makes a new certificate and moves it over the old one, as certbot and
// Kubernetes do. It returns what tells it from others.
func (p pair) replace(t *testing.T) (serial string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	for name, block := range map[string]*pem.Block{p.key: {Type: "PRIVATE KEY", Bytes: der}, p.cert: {Type: "CERTIFICATE", Bytes: cert}} {
		must(t, os.WriteFile(name+".new", pem.EncodeToMemory(block), 0o600))
		must(t, os.Rename(name+".new", name))
	}
	return template.SerialNumber.String()
}

// shown is the serial number of the certificate that new connections get.
func (x *target) shown(t *testing.T) string {
	t.Helper()
	conn, err := dialTLS(within(t), "", x.HTTPS)
	must(t, err)
	defer func() { _ = conn.Close() }()
	return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
}

// A new certificate, from the same source or another, is for new connections. A
// WebSocket, a relay, a call through it and an idle connection live on.
func TestCertificatesRotateUnderTraffic(t *testing.T) {
	var cfg gateway.Config
	x, g := startHere(t, func(c *gateway.Config) { cfg = *c })
	x.dialPlugin(x.API)
	call := x.talk(peerTURN, peerUDP)

	socket, _, err := websocket.Dial(within(t), "wss://"+x.HTTPS+"/api/v4/websocket", &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: &http.Transport{TLSClientConfig: insecure("http/1.1")}},
		HTTPHeader: http.Header{"Origin": {"https://" + x.HTTPS}},
	})
	must(t, err)
	defer func() { _ = socket.CloseNow() }()
	relay := x.talkSTUN(t, "tls")
	relay.login("alice")
	relay.want(relay.allocate(), 0)
	web, err := dialTLS(within(t), "", x.HTTPS, "http/1.1")
	must(t, err)
	defer func() { _ = web.Close() }()
	alive := func(when string) {
		t.Helper()
		must(t, socket.Write(within(t), websocket.MessageText, []byte(when)))
		if _, got, err := socket.Read(within(t)); err != nil || string(got) != when {
			t.Fatalf("%s: the WebSocket: %q, %v", when, got, err)
		}
		relay.want(relay.ask(relay.request(stun.MethodRefresh)), 0)
		get(t, web, when)
		x.hears(call.a, call.b, 10)
		x.hears(call.b, call.a, 10)
	}

	files := pair{filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")}
	before := x.shown(t)
	first := files.replace(t)
	own := cfg.TLS
	cfg.TLS.Source, cfg.TLS.CertFile, cfg.TLS.KeyFile = gateway.SourceFiles, files.cert, files.key
	_, err = g.Reload(cfg)
	must(t, err)
	if got := x.shown(t); got != first {
		t.Errorf("shows %s after the reload, want %s, had %s", got, first, before)
	}
	alive("after another source")
	for range 3 {
		next := files.replace(t)
		for ctx := within(t); x.shown(t) != next; time.Sleep(50 * time.Millisecond) {
			must(t, ctx.Err())
		}
		alive("after new files")
	}
	cfg.TLS = own
	_, err = g.Reload(cfg)
	must(t, err)
	alive("after the first source again")
}

// get asks for a page on a connection that stays.
func get(t *testing.T, conn *tls.Conn, when string) {
	t.Helper()
	_ = conn.SetDeadline(time.Now().Add(patience))
	_, err := conn.Write([]byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"))
	must(t, err)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || resp.StatusCode != http.StatusOK || resp.Close {
		t.Fatalf("%s: an idle connection: %+v, %v", when, resp, err)
	}
	_ = resp.Body.Close() // reads what is left
}
