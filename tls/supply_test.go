package tls

import (
	"crypto/tls"
	"slices"
	"testing"
	"time"
)

// shown is the issuer of the certificate that a new connection gets.
func (r *rig) shown() string {
	r.t.Helper()
	c := tls.Client(r.dial(), &tls.Config{InsecureSkipVerify: true, ServerName: domain})
	if err := c.Handshake(); err != nil {
		r.t.Fatal(err)
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0].Issuer.CommonName
}

// Every change of the source is applied by a reload. There is no moment without
// a certificate, and connections stay.
func TestSourceChangesByReload(t *testing.T) {
	ln := listen(t)
	p := startPebble(t, pebbleOptions{tlsPort: portOf(ln.Addr()), httpPort: 1})
	certs, err := NewCertificates(Config{Source: SourceSelfSigned}, []string{domain}, CertificateOptions{HTTPSPort: portOf(ln.Addr())})
	if err != nil {
		t.Fatal(err)
	}
	r := startRig(t, ln, certs, PortOptions{}).serve()
	kept := r.dialTLS()
	r.talk(kept, stun, 46)
	reload := func(cfg Config) {
		t.Helper()
		if err := certs.Reload(cfg, Secrets{}); err != nil {
			t.Fatal(err)
		}
	}

	d := newDisk(t, domain)
	reload(d.config())
	if got := r.shown(); got != domain || certs.Status().Source != SourceFiles {
		t.Errorf("files: shows %q", got)
	}
	p.down.Store(true)
	reload(Config{Source: SourceACME, ACME: p.config})
	eventually(t, "the CA's absence is told", func() bool { return certs.Status().LastError != "" })
	if got := r.shown(); got != domain || !certs.Status().Ready {
		t.Errorf("while the CA is down: shows %q, %+v", got, certs.Status())
	}
	p.down.Store(false)
	eventually(t, "the CA's certificate is shown", func() bool { return r.shown() != domain })
	orders := p.orders.Load()

	// The same storage, another account key: nothing is ordered anew.
	changed := p.config
	changed.KeyType = "p384"
	reload(Config{Source: SourceACME, ACME: changed, MinVersion: "1.3"})
	for range 3 {
		if got := r.shown(); got == domain {
			t.Errorf("changed tls.acme: shows %q", got)
		}
	}
	eventually(t, "the certificate is loaded", func() bool { return len(certs.now.Load().certificates()) == 1 })
	if got := p.orders.Load(); got != orders {
		t.Errorf("%d orders for what the storage holds", got-orders)
	}
	reload(Config{Source: SourceSelfSigned})
	eventually(t, "self-signed again", func() bool { return r.shown() == domain })
	if s := certs.Status(); s.LastError != "" || s.Source != SourceSelfSigned {
		t.Errorf("status: %+v", s)
	}
	if got := r.talk(kept, []byte("still here"), 10); got != "still here" {
		t.Errorf("open connection: %q", got)
	}
	if err := certs.Reload(Config{Source: SourceFiles, CertFile: "/nonexistent"}, Secrets{}); err == nil || r.shown() != domain {
		t.Errorf("files that are not there: %v", err)
	}
}

// Reloads one after the other, before and while Run runs, leave the last.
func TestSourceChangesOften(t *testing.T) {
	d := newDisk(t, "files")
	certs, err := NewCertificates(Config{Source: SourceSelfSigned}, []string{domain}, CertificateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	sources := []Config{{Source: SourceSelfSigned}, d.config()}
	for i := range 10 {
		if err := certs.Reload(sources[i%2], Secrets{}); err != nil {
			t.Fatal(err)
		}
	}
	r := startRig(t, listen(t), certs, PortOptions{}).serve()
	for i := range 20 {
		if err := certs.Reload(sources[i%2], Secrets{}); err != nil {
			t.Fatal(err)
		}
	}
	if got := r.shown(); got != "files" {
		t.Errorf("shows %q", got)
	}
	cert, key := makePair(t, "followed", time.Now().Add(time.Hour))
	d.replace(cert, key)
	eventually(t, "the files are followed", func() bool { return r.shown() == "followed" })
	if s := certs.Status(); !slices.Equal(s.Covered, []string{"followed"}) {
		t.Errorf("covered: %v", s.Covered)
	}
}
