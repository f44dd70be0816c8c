package gateway

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"sallyport/tls"
)

// errNotAdmitted says that the client lacks the certificate it needs
// (tls.client_auth).
var errNotAdmitted = errors.New("client not admitted")

// visitorKey is the context key of a connection's *tls.Visitor.
type visitorKey struct{}

// greet is the http.Server.ConnContext of connections whose clients may have to
// show a certificate.
func (g *Gateway) greet(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(withStrict(ctx, c), visitorKey{}, g.certs.Visitor())
}

// identify returns the certificate of who sent r, nil if there is none, and an
// error if he must not be admitted.
func identify(r *http.Request) (*x509.Certificate, error) {
	v, ok := r.Context().Value(visitorKey{}).(*tls.Visitor)
	if !ok {
		return nil, nil
	}
	cert, err := v.Identify(r.TLS)
	if err != nil {
		return nil, errors.Join(errNotAdmitted, err)
	}
	return cert, nil
}

// introduce tells an upstream, in h, whose certificate the client has shown. The
// names are those of Mattermost's own instructions for nginx.
func introduce(h http.Header, cert *x509.Certificate) {
	if cert == nil {
		return
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
	h.Set("X-SSL-Client-Cert", url.PathEscape(string(text)))
	h.Set("X-SSL-Client-Cert-Subject-DN", distinguishedName(cert))
}

var (
	oidCommonName = asn1.ObjectIdentifier{2, 5, 4, 3}
	oidEmail      = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}
)

// distinguishedName is the subject of cert as RFC 2253 writes it. The e-mail
// address, which Mattermost looks for, has the name that OpenSSL gives it.
func distinguishedName(cert *x509.Certificate) string {
	var all pkix.RDNSequence
	if _, err := asn1.Unmarshal(cert.RawSubject, &all); err != nil {
		return ""
	}
	var parts []string
	for _, rdn := range slices.Backward(all) {
		for _, attribute := range rdn {
			name := ""
			if attribute.Type.Equal(oidEmail) { // to be written like a name: escaped, not in hexadecimal
				attribute.Type, name = oidCommonName, "emailAddress"
			}
			text := pkix.RDNSequence{{attribute}}.String()
			if name != "" {
				text = name + strings.TrimPrefix(text, "CN")
			}
			parts = append(parts, text)
		}
	}
	return strings.Map(printable, strings.Join(parts, ","))
}

// printable drops what a header must not hold.
func printable(r rune) rune {
	if r < ' ' || r == 0x7f {
		return -1
	}
	return r
}
