package gateway

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// signed makes a certificate for a client, which signer vouches for; nil: it
// vouches for itself and others.
func signed(t *testing.T, subject pkix.Name, signer *tls.Certificate) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: subject, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	parent, by := template, key
	if signer == nil {
		template.IsCA, template.BasicConstraintsValid, template.ExtKeyUsage = true, true, nil
	} else {
		parent, by = signer.Leaf, signer.PrivateKey.(*ecdsa.PrivateKey)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), by)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func pemOf(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

// Who has no certificate is told what is missing; of who has one, Mattermost
// hears the name. TURN, by which the gateway tests itself, needs none.
func TestClientCertificates(t *testing.T) {
	ca := signed(t, pkix.Name{CommonName: "clients"}, nil)
	alice := signed(t, pkix.Name{CommonName: "Alice", Organization: []string{"Castle, Inc."}, ExtraNames: []pkix.AttributeTypeAndValue{
		{Type: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}, Value: "alice@example.com,\n"},
	}}, ca)
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pemOf(ca.Leaf), 0o600); err != nil {
		t.Fatal(err)
	}
	g := startGatewayWith(t, func(c *Config) {
		c.TLS.ClientAuth.Mode, c.TLS.ClientAuth.CAFile = "required", file
	}, func(o *Options) { o.SelfTest = 100 * time.Millisecond })
	page := "https://" + g.Addrs().HTTPS + "/plugins/mirror/"
	for _, proto := range []string{"http/1.1", "h2"} {
		c := client(nil, proto)
		defer c.CloseIdleConnections()
		resp, body := ask(t, c, request(t, http.MethodGet, page, "", "Accept", "text/html"))
		if resp.StatusCode != http.StatusForbidden || resp.Header.Get(rejectReason) != "client-certificate" || !strings.Contains(body, "client certificate is needed") {
			t.Errorf("%s without a certificate: %s: %s", proto, resp.Status, body)
		}
		resp, body = ask(t, c, request(t, http.MethodGet, "https://"+g.Addrs().HTTPS+"/api/v4/users/me", ""))
		var refusal struct {
			ID     string `json:"id"`
			Status int    `json:"status_code"`
		}
		if err := json.Unmarshal([]byte(body), &refusal); err != nil || resp.StatusCode != 403 || refusal.Status != 403 ||
			refusal.ID != "sallyport.client_certificate.refused" {
			t.Errorf("%s, a program without a certificate: %s: %s", proto, resp.Status, body)
		}

		c = client(nil, proto)
		defer c.CloseIdleConnections()
		c.Transport.(*http.Transport).TLSClientConfig.Certificates = []tls.Certificate{*alice}
		got := mirrored(t, c, request(t, http.MethodGet, page, "",
			"X-SSL-Client-Cert-Subject-DN", "CN=root", "X-SSL-Client-Verify", "SUCCESS"))
		if dn := got.Header.Get("X-SSL-Client-Cert-Subject-DN"); dn != `emailAddress=alice@example.com\,,CN=Alice,O=Castle\, Inc.` {
			t.Errorf("%s: subject %q", proto, dn)
		}
		text, err := url.PathUnescape(got.Header.Get("X-SSL-Client-Cert"))
		if err != nil || text != string(pemOf(alice.Leaf)) {
			t.Errorf("%s: certificate %q, %v", proto, text, err)
		}
		if v := got.Header.Get("X-SSL-Client-Verify"); v != "" {
			t.Errorf("%s: the client's own X-SSL-Client-Verify came through: %q", proto, v)
		}
	}
	g.results(t, time.Time{}, true)

	next := g.config()
	next.TLS.ClientAuth.Mode, next.TLS.ClientAuth.CAFile = "off", ""
	if _, err := g.Reload(next); err != nil {
		t.Fatal(err)
	}
	c := client(nil, "h2")
	defer c.CloseIdleConnections()
	if got := mirrored(t, c, request(t, http.MethodGet, page, "")); got.Header.Get("X-SSL-Client-Cert") != "" {
		t.Errorf("when it is off: %v", got.Header)
	}
}
