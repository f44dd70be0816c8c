package gateway_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"sallyport/gateway"
	"sallyport/sfu/peer"
)

// TestReloadTouchesNothing: 1,000 WebSockets, an upload under way, and a call of
// which one half goes through TURN over TLS outlive ten reloads, four of them with
// a new certificate, to other upstreams and limits.
func TestReloadTouchesNothing(t *testing.T) {
	const reloads = 10
	sockets := 1000
	if raceDetector { // `make test` runs it without, too
		sockets = 100
	}
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	certify(t, cert, key, 1)
	nodes := []string{reloadNode(t), reloadNode(t)}
	var cfg gateway.Config
	x, g := startHere(t, func(c *gateway.Config) {
		c.Upstream = nodes[:1]
		c.TLS.Source, c.TLS.CertFile, c.TLS.KeyFile = gateway.SourceFiles, cert, key
		cfg = *c
	})
	x.dialPlugin(x.API)
	call := x.talk(peer.TURNTLS, peer.UDP)
	open := x.openWebSockets(sockets)
	upload, more := x.beginUpload()

	call.mark()
	began := time.Now()
	serial := int64(1)
	for i := 1; i <= reloads; i++ {
		if i%3 == 1 {
			serial++
			certify(t, cert, key, serial)
		}
		cfg.Upstream = [][]string{nodes, nodes[1:], nodes[:1]}[i%3]
		cfg.Proxy.Hold, cfg.Proxy.MaxBody = time.Duration(i)*time.Second, int64(i)<<30
		cfg.Limits.Requests, cfg.Drain.WebsocketSpread = 1000+i, time.Duration(i)*time.Second
		changes, err := g.Reload(cfg)
		must(t, err)
		if len(changes.Restart) > 0 || len(changes.Applied) < 3 {
			t.Errorf("reload %d: %+v", i, changes)
		}
		conn, err := dialTLS(within(t), "", x.HTTPS)
		must(t, err)
		if got := conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64(); got != serial {
			t.Errorf("reload %d: certificate number %d, want %d", i, got, serial)
		}
		_ = conn.Close()
		more(1 << 20)
		x.hears(call.a, call.b, 5)
		x.hears(call.b, call.a, 5)
	}
	took := time.Since(began)
	if bad := call.harmed(took); bad != "" {
		t.Errorf("the call: %s", bad)
	}
	if got := upload(); got != "" {
		t.Errorf("the upload: %s", got)
	}
	for i, conn := range open {
		if err := echoes(within(t), conn, fmt.Sprint("still here, ", i)); err != nil {
			t.Errorf("WebSocket %d: %v", i, err)
		}
	}
}

// reloadNode is a Mattermost that answers an upload with the hash of it, and
// everything else as the stand-in does.
func reloadNode(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			page(w, r)
			return
		}
		h := sha256.New()
		if _, err := io.Copy(h, r.Body); err == nil {
			_, _ = fmt.Fprintf(w, "%x", h.Sum(nil))
		}
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// openWebSockets opens n of them, each of which has echoed.
func (x *target) openWebSockets(n int) []*websocket.Conn {
	x.t.Helper()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: insecure("http/1.1")}}
	all, faults := make([]*websocket.Conn, n), make([]error, n)
	var opening sync.WaitGroup
	room := make(chan struct{}, 32)
	for i := range n {
		room <- struct{}{}
		opening.Go(func() {
			defer func() { <-room }()
			conn, _, err := websocket.Dial(within(x.t), "wss://"+x.HTTPS+"/api/v4/websocket", &websocket.DialOptions{HTTPClient: client})
			if err == nil {
				err = echoes(within(x.t), conn, "hello")
			}
			all[i], faults[i] = conn, err
		})
	}
	opening.Wait()
	x.t.Cleanup(func() {
		for _, conn := range all {
			if conn != nil {
				_ = conn.CloseNow()
			}
		}
	})
	for _, err := range faults {
		must(x.t, err)
	}
	return all
}

func echoes(ctx context.Context, conn *websocket.Conn, text string) error {
	if err := conn.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
		return err
	}
	_, got, err := conn.Read(ctx)
	if err == nil && string(got) != text {
		err = fmt.Errorf("got %q back for %q", got, text)
	}
	return err
}

// beginUpload starts an upload. more sends so many bytes of it; end ends it and
// says what was wrong with it, "" for nothing.
func (x *target) beginUpload() (end func() string, more func(n int)) {
	x.t.Helper()
	r, w := io.Pipe()
	sent := sha256.New()
	answer := make(chan string, 1)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: insecure("http/1.1")}}
	go func() {
		resp, err := client.Post("https://"+x.HTTPS+"/api/v4/files", "application/octet-stream", r)
		if err != nil {
			_ = r.CloseWithError(err) // nobody waits for us to read on
			answer <- err.Error()
			return
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		answer <- fmt.Sprintf("%d %s %v", resp.StatusCode, text, err)
	}()
	more = func(n int) {
		x.t.Helper()
		b := make([]byte, n)
		_, _ = rand.Read(b)
		_, err := io.MultiWriter(w, sent).Write(b)
		must(x.t, err)
	}
	more(1 << 20)
	return func() string {
		_ = w.Close()
		want := fmt.Sprintf("200 %x <nil>", sent.Sum(nil))
		select {
		case got := <-answer:
			if got != want {
				return got + ", want " + want
			}
			return ""
		case <-time.After(patience):
			return "no answer"
		}
	}, more
}

// certify puts a certificate for localhost in place of the one that is there.
func certify(t *testing.T, cert, key string, serial int64) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	must(t, err)
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	must(t, err)
	for name, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: secret}} {
		must(t, os.WriteFile(name+".next", pem.EncodeToMemory(block), 0o600))
		must(t, os.Rename(name+".next", name))
	}
}
