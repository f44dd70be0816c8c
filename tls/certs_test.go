package tls

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// makePair returns a certificate for name with its key, in PEM.
func makePair(t *testing.T, name string, notAfter time.Time) (certPEM, keyPEM []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: name},
		DNSNames:     []string{name},
		NotBefore:    time.Now().Add(-48 * time.Hour),
		NotAfter:     notAfter,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
}

// A disk is a directory with a certificate and its key.
type disk struct {
	t    *testing.T
	dir  string
	cert string
	key  string
}

func newDisk(t *testing.T, name string) *disk {
	dir := t.TempDir()
	d := &disk{t, dir, filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")}
	d.replace(makePair(t, name, time.Now().Add(time.Hour)))
	return d
}

func (d *disk) config() Config {
	return Config{Source: SourceFiles, CertFile: d.cert, KeyFile: d.key}
}

// replace puts a new pair in place by rename, as careful tools do.
func (d *disk) replace(cert, key []byte) {
	d.t.Helper()
	for name, b := range map[string][]byte{d.cert: cert, d.key: key} {
		if err := os.WriteFile(name+".new", b, 0o600); err != nil {
			d.t.Fatal(err)
		}
		if err := os.Rename(name+".new", name); err != nil {
			d.t.Fatal(err)
		}
	}
}

func (d *disk) write(name string, b []byte) {
	d.t.Helper()
	if err := os.WriteFile(name, b, 0o600); err != nil {
		d.t.Fatal(err)
	}
}

func newFilesCerts(t *testing.T, d *disk) (*Certificates, *files) {
	t.Helper()
	c, err := NewCertificates(d.config(), []string{"chat.example.com"}, CertificateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return c, c.now.Load().provider.(*files)
}

func TestFilesFollowChanges(t *testing.T) {
	d := newDisk(t, "one")
	c, f := newFilesCerts(t, d)
	bad := 0.0
	check := func(what, name string) {
		t.Helper()
		f.poll()
		f.poll() // twice: trouble is counted once
		if got := c.Leaf().Subject.CommonName; got != name {
			t.Errorf("%s: serving %q, want %q", what, got, name)
		}
		if got := testutil.ToFloat64(f.metrics.reloadFailures); got != bad {
			t.Errorf("%s: %v failures counted, want %v", what, got, bad)
		}
		if failing := strings.HasPrefix(what, "bad"); (c.Status().LastError != "") != failing {
			t.Errorf("%s: last error %q", what, c.Status().LastError)
		}
	}
	check("unchanged", "one")

	d.replace(makePair(t, "two", time.Now().Add(time.Hour)))
	check("renamed", "two")

	cert, key := makePair(t, "three", time.Now().Add(time.Hour))
	bad = 1
	d.write(d.cert, cert[:len(cert)/2])
	check("bad: half written", "two")
	bad = 2
	d.write(d.cert, cert)
	check("bad: key of another certificate", "two")
	d.write(d.key, key)
	check("both written", "three")

	bad = 3
	if err := os.Remove(d.key); err != nil {
		t.Fatal(err)
	}
	check("bad: key missing", "three")
	d.write(d.key, make([]byte, maxPEM+1))
	check("bad: key too large", "three") // as unreadable as before, so no news
	d.write(d.key, key)
	check("whole again", "three")
}

func TestFilesRefuseExpired(t *testing.T) {
	d := newDisk(t, "good")
	c, f := newFilesCerts(t, d)
	d.replace(makePair(t, "expired", time.Now().Add(-time.Hour)))
	f.poll()
	if got := c.Leaf().Subject.CommonName; got != "good" {
		t.Errorf("serving %q, want the one that is still valid", got)
	}
	if _, err := NewCertificates(d.config(), nil, CertificateOptions{}); err != nil {
		t.Errorf("at start an expired certificate is better than none: %v", err)
	}
}

// Kubernetes mounts secrets so: files are links into a directory that is itself
// a link, and that one is swapped.
func TestFilesFollowSymlinkSwap(t *testing.T) {
	d := newDisk(t, "unused")
	for _, v := range []string{"one", "two"} {
		dir := filepath.Join(d.dir, v)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		cert, key := makePair(t, v, time.Now().Add(time.Hour))
		d.write(filepath.Join(dir, "tls.crt"), cert)
		d.write(filepath.Join(dir, "tls.key"), key)
	}
	link := func(target, name string) {
		t.Helper()
		os.Remove(name + ".new")
		if err := os.Symlink(target, name+".new"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(name+".new", name); err != nil {
			t.Fatal(err)
		}
	}
	data := filepath.Join(d.dir, "data")
	link("one", data)
	link("data/tls.crt", d.cert)
	link("data/tls.key", d.key)
	c, f := newFilesCerts(t, d)
	if got := c.Leaf().Subject.CommonName; got != "one" {
		t.Fatalf("serving %q, want one", got)
	}
	link("two", data)
	f.poll()
	if got := c.Leaf().Subject.CommonName; got != "two" {
		t.Errorf("serving %q, want two", got)
	}
}

// Through Run and a Port: a swap reaches new connections and leaves those that
// are open alone.
func TestReloadWithOpenConnection(t *testing.T) {
	d := newDisk(t, "one")
	c, f := newFilesCerts(t, d)
	f.every = time.Millisecond
	r := startRig(t, listen(t), c, PortOptions{}).serve()
	trust := func() *tls.Config { return &tls.Config{InsecureSkipVerify: true} }
	open := tls.Client(r.dial(), trust())
	r.talk(open, stun, 46)
	d.replace(makePair(t, "two", time.Now().Add(time.Hour)))
	eventually(t, "the new certificate is served", func() bool {
		c := tls.Client(r.dial(), trust())
		defer c.Close()
		return c.Handshake() == nil && c.ConnectionState().PeerCertificates[0].Subject.CommonName == "two"
	})
	if got := r.talk(open, []byte("still here"), 10); got != "still here" {
		t.Errorf("open connection: %q", got)
	}
}

func TestReload(t *testing.T) {
	d := newDisk(t, "one")
	c, f := newFilesCerts(t, d)
	other := newDisk(t, "other")
	if err := c.Reload(other.config(), Secrets{}); err != nil {
		t.Fatal(err)
	}
	if got := c.Leaf().Subject.CommonName; got != "other" {
		t.Errorf("serving %q, want other", got)
	}
	d.replace(makePair(t, "no longer watched", time.Now().Add(time.Hour)))
	broken := d.config()
	broken.KeyFile = other.key
	if err := c.Reload(broken, Secrets{}); err == nil || !strings.Contains(err.Error(), "private key does not match") {
		t.Errorf("reload of a broken pair: %v", err)
	}
	f.poll()
	if got := c.Leaf().Subject.CommonName; got != "other" {
		t.Errorf("serving %q after a failed reload, want other", got)
	}
	other.replace(makePair(t, "followed", time.Now().Add(time.Hour)))
	f.poll()
	if got := c.Leaf().Subject.CommonName; got != "followed" {
		t.Errorf("serving %q, want what is at the new paths", got)
	}
}

// A client that was here before the reload resumes its session after it.
func TestSessionsSurviveReload(t *testing.T) {
	r := newRig(t, PortOptions{}).serve()
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		cfg := r.clientConfig("http/1.1")
		cfg.ClientSessionCache, cfg.MaxVersion = tls.NewLRUClientSessionCache(1), version
		resumed := func() bool {
			c := tls.Client(r.dial(), cfg)
			r.talk(c, []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), 15) // the ticket of 1.3 comes with the answer
			c.Close()
			return c.ConnectionState().DidResume
		}
		if resumed() {
			t.Fatal("resumed what never was")
		}
		for _, least := range []string{"", "1.2", ""} {
			if err := r.certs.Reload(Config{Source: SourceSelfSigned, MinVersion: least}, Secrets{}); err != nil {
				t.Fatal(err)
			}
			if !resumed() {
				t.Errorf("%s: a reload forgot the session", tls.VersionName(version))
			}
		}
	}
	if err := r.certs.Reload(Config{Source: SourceSelfSigned, MinVersion: "1.3"}, Secrets{}); err != nil {
		t.Fatal(err)
	}
	old := r.clientConfig()
	old.MaxVersion = tls.VersionTLS12
	if err := tls.Client(r.dial(), old).Handshake(); err == nil {
		t.Error("TLS 1.2 is spoken although a reload forbade it")
	}
}

func TestNewCertificatesErrors(t *testing.T) {
	d := newDisk(t, "one")
	acme := func(a ACME) Config { return Config{Source: SourceACME, ACME: a} }
	for _, tt := range []struct {
		name string
		cfg  Config
		want string
	}{
		{"no source", Config{}, `tls.source "": want acme, files or selfsigned`},
		{"version", Config{Source: SourceSelfSigned, MinVersion: "1.1"}, `tls.min_version "1.1": want "1.2" or "1.3"`},
		{"no file", Config{Source: SourceFiles, CertFile: "/nowhere", KeyFile: d.key}, "read certificate: open /nowhere: no such file or directory"},
		{"no key", Config{Source: SourceFiles, CertFile: d.cert, KeyFile: "/nowhere"}, "read key: open /nowhere: no such file or directory"},
		{"not PEM", Config{Source: SourceFiles, CertFile: d.key, KeyFile: d.key}, "load certificate"},
		{"no storage", acme(ACME{}), "tls.acme.storage is empty"},
		{"storage is a file", acme(ACME{Storage: d.cert}), "make tls.acme.storage"},
		{"CA without TLS", acme(ACME{Storage: d.dir, CA: "http://ca.example.com/dir"}), `tls.acme.ca "http://ca.example.com/dir": want`},
		{"unknown CA", acme(ACME{Storage: d.dir, CA: "letsencrpyt"}), `tls.acme.ca "letsencrpyt": want`},
		{"no roots file", acme(ACME{Storage: d.dir, CARootFile: "/nowhere"}), "read tls.acme.ca_root_file"},
		{"roots without roots", acme(ACME{Storage: d.dir, CARootFile: d.key}), "no certificate found"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := NewCertificates(tt.cfg, []string{"chat.example.com"}, CertificateOptions{})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
	if _, err := NewCertificates(acme(ACME{Storage: d.dir}), nil, CertificateOptions{}); err == nil {
		t.Error("acme without a name succeeded")
	}
}

func TestSelfSigned(t *testing.T) {
	reg := prometheus.NewRegistry()
	names := []string{"chat.example.com", "192.0.2.7"}
	c, err := NewCertificates(Config{Source: SourceSelfSigned}, names, CertificateOptions{Metrics: reg})
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(c.Leaf())
	for _, name := range append(names, "localhost", "127.0.0.1", "::1") {
		if net.ParseIP(name) != nil {
			name = "[" + name + "]"
		}
		if _, err := c.Leaf().Verify(x509.VerifyOptions{Roots: pool, DNSName: name}); err != nil {
			t.Errorf("verify for %s: %v", name, err)
		}
	}
	s := c.Status()
	want := CertificateStatus{
		Source: SourceSelfSigned, Names: names, Ready: true,
		Covered: []string{"chat.example.com", "localhost", "192.0.2.7", "127.0.0.1", "::1"},
		Issuer:  "chat.example.com", NotBefore: c.Leaf().NotBefore, NotAfter: c.Leaf().NotAfter,
		PublicKey: s.PublicKey,
		Expiry:    []Expiry{{names[0], c.Leaf().NotAfter}, {names[1], c.Leaf().NotAfter}},
	}
	if diff := cmp.Diff(want, s); diff != "" {
		t.Error(diff)
	}
	if len(s.PublicKey) != 44 {
		t.Errorf("public key pin %q", s.PublicKey)
	}
	if got := c.notAfter(); got != float64(c.Leaf().NotAfter.Unix()) {
		t.Errorf("gauge %v", got)
	}
}

func TestSelfSignedTakesNamesByReload(t *testing.T) {
	c, err := NewCertificates(Config{Source: SourceSelfSigned, Names: []string{"a.example.com"}}, []string{"chat.example.com"}, CertificateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	first := c.Leaf()
	for _, tt := range []struct {
		names []string
		want  string
	}{
		{[]string{"a.example.com"}, "chat.example.com a.example.com localhost"},
		{[]string{"b.example.com"}, "chat.example.com b.example.com localhost"},
		{nil, "chat.example.com localhost"},
	} {
		if err := c.Reload(Config{Source: SourceSelfSigned, Names: tt.names}, Secrets{}); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(c.Leaf().DNSNames, " "); got != tt.want || !c.Status().Ready {
			t.Errorf("%v: certificate for %s, want %s", tt.names, got, tt.want)
		}
		if same := c.Leaf().Equal(first); same != (tt.names != nil && tt.names[0] == "a.example.com") {
			t.Errorf("%v: same certificate %v", tt.names, same)
		}
	}
}

func TestSelfSignedIsRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := NewCertificates(Config{Source: SourceSelfSigned}, []string{"x"}, CertificateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- c.Run(ctx) }()
		first := c.Leaf()
		for range 3 {
			time.Sleep(61 * 24 * time.Hour)
			synctest.Wait()
			if left := time.Until(c.Leaf().NotAfter); left < 30*24*time.Hour {
				t.Errorf("%s left on the certificate", left)
			}
		}
		if c.Leaf().Equal(first) {
			t.Error("still the first certificate")
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
