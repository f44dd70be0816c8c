package doctor_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/net/http2"

	"sallyport/gateway/doctor"
	"sallyport/sfu/wire"
	"sallyport/turn"
)

// standIn is an HTTP server that answers in place of something of ours.
func standIn(t *testing.T, h http.Handler) (url string) {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// tellsFiles is an admin listener that asks the real one, but has its own idea
// of how many files the process may open.
func tellsFiles(t *testing.T, admin string, files int) http.Handler {
	t.Helper()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/metrics" {
			_, _ = io.WriteString(w, "# TYPE rtcd_process_max_fds gauge\nrtcd_process_max_fds "+strconv.Itoa(files)+"\n")
			return
		}
		resp, err := http.Get(admin + r.URL.Path)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		defer resp.Body.Close()
		w.WriteHeader(resp.StatusCode)
	})
}

// A site is what else may listen on port 443.
type site struct {
	cert     tls.Certificate
	min, max uint16   // versions of TLS
	protos   []string // ALPN; nil: h2 and http/1.1
	handler  http.Handler
	serve    func(net.Conn) // in place of handler
}

func startSite(t *testing.T, s site) (address string) {
	t.Helper()
	if s.protos == nil {
		s.protos = []string{"h2", "http/1.1"}
	}
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{s.cert}, MinVersion: s.min, MaxVersion: s.max, NextProtos: s.protos,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	if s.serve == nil {
		server := &http.Server{Handler: s.handler}
		go func() { _ = server.Serve(ln) }()
		t.Cleanup(func() { _ = server.Close() })
		return ln.Addr().String()
	}
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go s.serve(conn)
		}
	}()
	return ln.Addr().String()
}

// announce answers HTTP/2 with one frame, and waits for the other end to go.
func announce(write func(*http2.Framer) error) func(net.Conn) {
	return func(conn net.Conn) {
		defer func() { _ = conn.Close() }()
		if write(http2.NewFramer(conn, conn)) == nil {
			_, _ = io.Copy(io.Discard, conn)
		}
	}
}

// TestOthersOnThePort: what the doctor says of servers that are not Sallyport.
func TestOthersOnThePort(t *testing.T) {
	date := func(d time.Duration) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			if d == 0 {
				w.Header()["Date"] = nil
				return
			}
			w.Header().Set("Date", time.Now().Add(d).UTC().Format(http.TimeFormat))
		}
	}
	for name, test := range map[string]struct {
		site site
		only string
	}{
		"old-tls": {site{min: tls.VersionTLS10, max: tls.VersionTLS12}, "tls.versions"},
		"tls-1.2": {site{max: tls.VersionTLS12}, "tls.versions"},
		"no-h2":   {site{protos: []string{"http/1.1"}}, "http.h2,http.extended-connect"},
		"extended-connect": {site{serve: announce(func(f *http2.Framer) error {
			return f.WriteSettings(http2.Setting{ID: http2.SettingEnableConnectProtocol, Val: 1})
		})}, "http.h2,http.extended-connect"},
		"h2-without-settings": {site{serve: announce(func(f *http2.Framer) error {
			return f.WritePing(false, [8]byte{})
		})}, "http.h2,http.extended-connect"},
		"clock-far-off":  {site{handler: date(-2 * time.Hour)}, "host.clock"},
		"clock-slightly": {site{handler: date(20 * time.Second)}, "host.clock"},
		"no-date":        {site{handler: date(0)}, "host.clock"},
		"no-tls":         {site{serve: func(c net.Conn) { _ = c.(*tls.Conn).NetConn().Close() }}, "tls.certificate,proxy.ping"},
	} {
		t.Run(name, func(t *testing.T) {
			test.site.cert = newAuthority(t).issue(nil).pair(t)
			target := doctor.Target{Host: domain, HTTPSAddress: startSite(t, test.site), Only: strings.Split(test.only, ",")}
			golden(t, name, target)
		})
	}
}

// TestSecretFiles: their permissions and what the configuration found.
func TestSecretFiles(t *testing.T) {
	dir := t.TempDir()
	good := write(t, dir, "good", []byte("x"))
	open := write(t, dir, "open", []byte("x"))
	if err := os.Chmod(open, 0o644); err != nil {
		t.Fatal(err)
	}
	const key = "turn.secret_file"
	for name, files := range map[string][]doctor.SecretFile{
		"secrets-none":    nil,
		"secrets-missing": {{Key: key, Name: dir + "/nowhere"}},
		"secrets-open":    {{Key: "tls.key_file", Name: good}, {Key: key, Name: open}},
		"secrets-short":   {{Key: key, Name: good, Problem: good + " holds 1 bytes: a secret needs at least 16"}},
	} {
		target := doctor.Target{Host: domain, Secrets: files, Only: []string{"config.secrets"}}
		golden(t, name, target)
	}
}

// TestHost: what the kernel grants.
func TestHost(t *testing.T) {
	for name, target := range map[string]doctor.Target{
		"few-files":       {AdminURL: standIn(t, tellsFiles(t, "", 1024)), Only: []string{"host.fds"}},
		"small-buffers":   {Proc: kernel(t, 212992), Only: []string{"host.udp-buffers"}},
		"unknown-buffers": {Proc: t.TempDir(), Only: []string{"host.udp-buffers"}},
	} {
		target.Host = domain
		golden(t, name, target)
	}
}

// occupy takes the one allocation there is, until the test ends.
func occupy(t *testing.T, in *installation) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	t.Cleanup(func() { cancel(); <-ended })
	p := turn.ProbeTarget{
		Network: "tcp", Address: in.target.HTTPSAddress, Username: in.target.TURNUsername, Password: in.target.TURNPassword,
		Peer: netip.MustParseAddrPort(in.target.MediaUDP), // which never answers
	}
	go func() {
		defer close(ended)
		_, _ = turn.Probe(ctx, p)
	}()
	deadline := time.Now().Add(30 * time.Second)
	for in.Status().TURN.Allocations["tcp"] == 0 {
		if time.Now().After(deadline) {
			t.Fatal("never allocated")
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// hideCandidates stands between the doctor and the rtcd API and keeps the
// addresses of participants from the SFU, which then cannot reach them first:
// as if a NAT or a firewall were between.
func hideCandidates(t *testing.T, api string) (url string) {
	t.Helper()
	return standIn(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		server, _, err := websocket.Dial(r.Context(), api+"/ws", &websocket.DialOptions{
			HTTPHeader: http.Header{"Authorization": r.Header["Authorization"]},
		})
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer func() { _ = server.CloseNow() }()
		client, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer func() { _ = client.CloseNow() }()
		go carry(r.Context(), server, client, func(wire.Envelope) bool { return true })
		carry(r.Context(), client, server, func(e wire.Envelope) bool {
			return e.Type != wire.TypeRTC || e.Message.Kind != wire.KindICE
		})
	}))
}

// carry copies the envelopes that pass, until an end closes.
func carry(ctx context.Context, from, to *websocket.Conn, pass func(wire.Envelope) bool) {
	for {
		kind, frame, err := from.Read(ctx)
		if err != nil {
			return
		}
		if e, err := wire.Decode(frame); err == nil && !pass(e) {
			continue
		}
		if to.Write(ctx, kind, frame) != nil {
			return
		}
	}
}
