package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestReloadsDropNothing: 100 reloads, 20 of them with a new certificate, while
// wrk asks over connections that stay and over one that is new for each request.
// It counts no error, and everything was in force when its turn had come.
func TestReloadsDropNothing(t *testing.T) {
	const reloads, swaps = 100, 20
	if _, err := exec.LookPath("wrk"); err != nil {
		t.Skipf("SKIPPED, NOT TESTED: %v", err)
	}
	one, two := startMattermost(t, "one"), startMattermost(t, "two")
	p := newProcess(t, "http://"+one.address)
	pair := []string{filepath.Join(filepath.Dir(p.file), "cert.pem"), filepath.Join(filepath.Dir(p.file), "key.pem")}
	config := func(i int) string {
		upstream := []string{"http://" + one.address, "http://" + two.address}[i%2]
		if i%3 == 0 {
			upstream = fmt.Sprintf("[http://%s, http://%s]", one.address, two.address)
		}
		files := fmt.Sprintf("tls: {source: files, cert_file: %s, key_file: %s, hsts: %dh}", pair[0], pair[1], i)
		proxy := fmt.Sprintf("proxy: {hold: %ds, max_body: %d, ", i%7+1, 1000+i)
		return strings.NewReplacer("tls: {source: selfsigned}", files, "proxy: {", proxy).Replace(p.configuration(upstream))
	}
	p.certify(pair, 1)
	p.configure(config(0))
	p.start()
	stay := startWrk(t, "-c8", "https://"+p.HTTPS+"/")
	come := startWrk(t, "-c1", "-H", "Connection: close", "https://"+p.HTTPS+"/")
	for i := 1; i <= reloads; i++ {
		serial := int64(1 + i/(reloads/swaps))
		if i%(reloads/swaps) == 0 {
			p.certify(pair, serial)
		}
		p.configure(config(i))
		p.signal(syscall.SIGHUP)
		p.saysTimes(`"msg":"configuration reloaded"`, i)
		if got := p.serial(); got != serial {
			t.Fatalf("after reload %d the certificate is number %d, want %d", i, got, serial)
		}
	}
	for name, w := range map[string]*wrk{"connections that stay": stay, "new connections": come} {
		if n := w.stop(); n < 100 {
			t.Errorf("%s: only %d requests", name, n)
		} else {
			t.Logf("%s: %d requests, no error", name, n)
		}
	}
	if strings.Contains(p.log.String(), `"level":"ERROR"`) {
		t.Error("there were errors")
	}
}

// certify writes a certificate and its key as others do: each beside its place,
// and then renamed into it.
func (p *process) certify(pair []string, serial int64) {
	p.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	p.must(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	p.must(err)
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	p.must(err)
	for i, block := range []*pem.Block{{Type: "CERTIFICATE", Bytes: der}, {Type: "PRIVATE KEY", Bytes: secret}} {
		p.must(os.WriteFile(pair[i]+".next", pem.EncodeToMemory(block), 0o600))
		p.must(os.Rename(pair[i]+".next", pair[i]))
	}
}

// serial is the number of the certificate that a new connection sees.
func (p *process) serial() int64 {
	p.t.Helper()
	conn, err := tls.Dial("tcp", p.HTTPS, &tls.Config{InsecureSkipVerify: true, ServerName: "localhost"})
	p.must(err)
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
}

// A wrk is the load generator at work.
type wrk struct {
	t       *testing.T
	command *exec.Cmd
	out     bytes.Buffer
}

func startWrk(t *testing.T, args ...string) *wrk {
	t.Helper()
	w := &wrk{t: t, command: exec.Command("wrk", append([]string{"-t1", "-d10m", "--timeout", "40s"}, args...)...)}
	w.command.Stdout, w.command.Stderr = &w.out, &w.out
	if err := w.command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.command.Process.Kill() })
	return w
}

// stop ends it and returns how many requests it has made. One that failed is an
// error of the test.
func (w *wrk) stop() (requests int) {
	w.t.Helper()
	if err := w.command.Process.Signal(syscall.SIGINT); err != nil {
		w.t.Error(err)
	}
	if err := w.command.Wait(); err != nil {
		w.t.Error(err)
	}
	said := w.out.String()
	for _, bad := range []string{"Socket errors", "Non-2xx"} {
		if strings.Contains(said, bad) {
			w.t.Errorf("wrk says:\n%s", said)
		}
	}
	if _, rest, ok := strings.Cut(said, "Thread Stats"); ok {
		for line := range strings.Lines(rest) {
			if n, _ := fmt.Sscanf(line, "%d requests in", &requests); n == 1 {
				return requests
			}
		}
	}
	w.t.Errorf("wrk says:\n%s", said)
	return 0
}
