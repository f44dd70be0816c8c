package tls

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"strings"
	"testing"
	"time"
)

// An authority signs certificates for tests.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// issue makes a certificate of by's, or one that signs itself if by is nil.
func (by *authority) issue(t *testing.T, name string, ca bool) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: ca, BasicConstraintsValid: true,
	}
	if ca {
		template.KeyUsage = x509.KeyUsageCertSign
	} else {
		template.DNSNames = []string{name}
	}
	parent, signer := template, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{t, cert, key}
}

// bundle is a PEM file of certificates.
func bundle(all ...*authority) []byte {
	var out []byte
	for _, a := range all {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})...)
	}
	return out
}

func (a *authority) keyPEM() []byte {
	der, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func TestChainsAreExamined(t *testing.T) {
	root := (*authority)(nil).issue(t, "root", true)
	upper := root.issue(t, "upper", true)
	lower := upper.issue(t, "lower", true)
	leaf := lower.issue(t, domain, false)
	stranger := (*authority)(nil).issue(t, "stranger", true)
	alone := (*authority)(nil).issue(t, domain, false)
	roots := x509.NewCertPool()
	roots.AddCert(root.cert)
	for name, tt := range map[string]struct {
		names []string
		file  []*authority
		order string // by which it is sent
		want  string // in the warning
	}{
		"complete":             {[]string{domain}, []*authority{leaf, lower, upper}, "chat.example.com lower upper", ""},
		"with its root":        {[]string{domain}, []*authority{leaf, lower, upper, root}, "chat.example.com lower upper root", ""},
		"out of order":         {[]string{domain}, []*authority{leaf, root, upper, lower}, "chat.example.com lower upper root", ""},
		"with a stranger":      {[]string{domain}, []*authority{leaf, stranger, upper, lower}, "chat.example.com lower upper stranger", ""},
		"leaf alone":           {[]string{domain}, []*authority{leaf}, domain, `incomplete: the file ends with "chat.example.com", whose issuer "lower"`},
		"upper one missing":    {[]string{domain}, []*authority{leaf, lower}, "chat.example.com lower", `ends with "lower", whose issuer "upper"`},
		"lower one missing":    {[]string{domain}, []*authority{leaf, upper}, "chat.example.com upper", `ends with "chat.example.com"`},
		"for another name":     {[]string{"calls.example.com"}, []*authority{leaf, lower, upper}, "chat.example.com lower upper", "not for calls.example.com but for chat.example.com"},
		"for one name of two":  {[]string{domain, "calls.example.com"}, []*authority{leaf, lower, upper}, "chat.example.com lower upper", "not for calls.example.com"},
		"signed by itself":     {[]string{domain}, []*authority{alone}, domain, "self-signed"},
		"private CA, complete": {[]string{domain}, []*authority{stranger.issue(t, domain, false), stranger}, "chat.example.com stranger", ""},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDisk(t, "x")
			d.replace(bundle(tt.file...), tt.file[0].keyPEM())
			pair, chain, _, err := readPair(d.cert, d.key)
			if err != nil {
				t.Fatal(err)
			}
			var order []string
			for _, der := range pair.Certificate {
				c, err := x509.ParseCertificate(der)
				if err != nil {
					t.Fatal(err)
				}
				order = append(order, c.Subject.CommonName)
			}
			if got := strings.Join(order, " "); got != tt.order {
				t.Errorf("sent as %s, want %s", got, tt.order)
			}
			if got := objection(chain, tt.names, roots); got == "" != (tt.want == "") || !strings.Contains(got, tt.want) {
				t.Errorf("warning %q, want %q", got, tt.want)
			}
		})
	}
}

// The log and the status tell of a chain that clients may refuse, until there is
// a better one.
func TestFilesTellWhatClientsRefuse(t *testing.T) {
	root := (*authority)(nil).issue(t, "root", true)
	lower := root.issue(t, "lower", true)
	leaf := lower.issue(t, domain, false)
	d := newDisk(t, "x")
	d.replace(bundle(leaf), leaf.keyPEM())
	var log bytes.Buffer
	c, err := NewCertificates(d.config(), []string{domain}, CertificateOptions{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	f := c.now.Load().provider.(*files)
	f.roots = x509.NewCertPool()
	f.roots.AddCert(root.cert)
	if err := c.Reload(d.config(), Secrets{}); err != nil {
		t.Fatal(err)
	}
	if w := c.Status().Warning; !strings.Contains(w, "incomplete") || !strings.Contains(log.String(), "clients may refuse the certificate") {
		t.Errorf("warning %q, log %s", w, &log)
	}
	d.write(d.cert, bundle(leaf, lower))
	f.poll()
	if w := c.Status().Warning; w != "" {
		t.Errorf("still warns: %q", w)
	}
}

// A certificate for another name does not replace one for ours, nor does a pair
// of which half is written.
func TestFilesKeepTheNameClientsWant(t *testing.T) {
	d := newDisk(t, "x")
	good := (*authority)(nil).issue(t, domain, false)
	d.replace(bundle(good), good.keyPEM())
	c, f := newFilesCerts(t, d)
	other := (*authority)(nil).issue(t, "calls.example.com", false)
	d.replace(bundle(other), other.keyPEM())
	f.poll()
	if s := c.Status(); !c.Leaf().Equal(good.cert) || !strings.Contains(s.LastError, "not for "+domain) || !s.Ready {
		t.Errorf("serving %v, status %+v", c.Leaf().DNSNames, s)
	}
	if err := c.Reload(d.config(), Secrets{}); err == nil {
		t.Error("a reload takes it")
	}
	next := (*authority)(nil).issue(t, domain, false)
	d.write(d.cert, bundle(next))
	f.poll()
	if !c.Leaf().Equal(good.cert) {
		t.Error("half a pair replaces a whole one")
	}
	d.write(d.key, next.keyPEM())
	f.poll()
	if s := c.Status(); !c.Leaf().Equal(next.cert) || s.LastError != "" {
		t.Errorf("serving the old one, status %+v", s)
	}
}
