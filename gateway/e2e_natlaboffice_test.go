package gateway_test

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
)

// An office: those who only listen, in calls of ten, and those who speak, in calls
// of two, each with two connections that their browsers have opened ahead of need.
const (
	officeListens = 480
	officeSpeaks  = 20
)

// office: 500 people join over TURN/TLS, through NAT that has one address, and no
// limit by address is met.
func (n *network) office() {
	t := n.t
	clients := newElsewhere(t)
	s, api := newSite(t, "addr add 10.77.3.1/32 dev lo")
	r := newRouter(t, clients, s.there, masquerade)
	must(t, clients.do(func() error { return ip("link set lo up", "route add default via "+r.inside.String()) }))
	// To sallyload all are one user.
	s.serve(n.binary, s.there, layout{https: "10.77.3.1:443", media: "10.77.3.1", api: api, perUser: officeListens + officeSpeaks})
	n = n.on(s)
	ahead := crowd(t, 2*(officeListens+officeSpeaks), func(int) (conn net.Conn) {
		must(t, clients.do(func() (err error) { conn, err = net.Dial("tcp", n.HTTPS); return err }))
		t.Cleanup(func() { _ = conn.Close() })
		must(t, tls.Client(conn, insecure("http/1.1")).HandshakeContext(within(t)))
		return conn
	})
	n.reaches(t, demuxPending, len(ahead))
	load := sallyload{clients: clients, binary: build(t, "sallyload"), roots: filepath.Join(t.TempDir(), "roots.pem")}
	must(t, os.WriteFile(load.roots, n.certificate(clients), 0o600))
	listening := make(chan loadReport, 1)
	go func() {
		listening <- load.run(n, "-calls", fmt.Sprint(officeListens/10), "-users", "10", "-unmuted", "0", "-ramp", "5ms", "-warm", "0s", "-duration", "15s")
	}()
	n.reaches(t, `sallyport_turn_allocations{transport="tls"}`, officeListens)
	spoke := load.run(n, "-calls", fmt.Sprint(officeSpeaks/2), "-users", "2", "-unmuted", "2", "-ramp", "5ms", "-warm", "1s", "-duration", "2s")
	listened := <-listening
	t.Logf("%+v\n%+v", listened, spoke)
	if spoke.err != nil || listened.err != nil || spoke.Joins.Failed+listened.Joins.Failed > 0 {
		t.Errorf("%v, %v; %d and %d joins failed", listened.err, spoke.err, listened.Joins.Failed, spoke.Joins.Failed)
	}
	if spoke.Tracks.Got != officeSpeaks || spoke.Packets.Loss > 1 {
		t.Errorf("%d tracks of %d, %g %% lost", spoke.Tracks.Got, officeSpeaks, spoke.Packets.Loss)
	}
	for _, limit := range []string{"address", "open_address"} {
		if refused, err := n.metric(within(t), `sallyport_demux_refused_total{limit="`+limit+`"}`); err == nil && refused > 0 {
			t.Errorf("limit %s: %v connections refused", limit, refused)
		}
	}
}

// certificate is that of the product.
func (n *network) certificate(from elsewhere) []byte {
	n.t.Helper()
	var conn *tls.Conn
	must(n.t, from.do(func() (err error) { conn, err = dialTLS(n.t.Context(), "", n.HTTPS); return err }))
	defer func() { _ = conn.Close() }()
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: conn.ConnectionState().PeerCertificates[0].Raw})
}

// A sallyload runs where the clients are, as a program of its own: it must not pay
// for the race detector.
type sallyload struct {
	clients       elsewhere
	binary, roots string
}

// A loadReport is what is used of what it prints.
type loadReport struct {
	Joins struct {
		Wanted, Failed int
		Errors         map[string]int
	}
	Tracks  struct{ Wanted, Got int }
	Packets struct {
		Received uint64
		Loss     float64 `json:"loss_percent"`
	}
	Paths map[string]int
	err   error
}

func (s sallyload) run(n *network, args ...string) (r loadReport) {
	load := exec.CommandContext(within(n.t), s.binary, append([]string{"-api", "http://" + n.API, "-client-id", e2eClient, "-auth-key", e2eClientKey,
		"-no-register", "-path", "turn-tls", "-turn", "turns:" + n.HTTPS + "?transport=tcp", "-turn-secret", e2eTURNSecret}, args...)...)
	load.Env = append(os.Environ(), "SSL_CERT_FILE="+s.roots)
	var said, result bytes.Buffer
	load.Stdout, load.Stderr = &result, &said
	if r.err = s.clients.do(load.Start); r.err != nil {
		return r
	}
	if r.err = load.Wait(); r.err == nil {
		r.err = json.Unmarshal(result.Bytes(), &r)
	}
	if r.err != nil {
		r.err = fmt.Errorf("sallyload: %w: %s", r.err, &said)
	}
	return r
}
