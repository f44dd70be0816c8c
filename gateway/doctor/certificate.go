package doctor

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"strings"
	"time"
)

// mostNotice is how long before its end a certificate is complained about at
// most; one of a few days is given a fifth of its life.
const mostNotice = 21 * 24 * time.Hour

// checkCertificate judges what the site shows as a phone does: by the served
// certificates and the roots alone, without fetching what is missing.
func checkCertificate(ctx context.Context, t *Target) result {
	chain, err := t.served(ctx)
	if err != nil {
		return noHandshake(err, t)
	}
	leaf := chain[0]
	now := time.Now()
	left := leaf.NotAfter.Sub(now)
	if leaf.VerifyHostname(t.Host) != nil {
		return failed("the certificate is for %s, not for %s", strings.Join(names(leaf), ", "), t.Host).
			todo("take a certificate that names %s, or correct domain", t.Host)
	}
	switch {
	case left <= 0:
		return failed("the certificate has expired on %s", day(leaf.NotAfter)).
			todo("with tls.source: files, put the new one in place; with acme, `sallyport status` tells why it was not renewed")
	case now.Before(leaf.NotBefore):
		return failed("the certificate is valid from %s on only", day(leaf.NotBefore)).todo("set the clock of the machine that made it, or wait")
	}
	if r, bad := judgeChain(chain, t.Roots); bad {
		return r
	}
	if left < min(mostNotice, leaf.NotAfter.Sub(leaf.NotBefore)/5) {
		return warned("the certificate ends in %s, on %s", days(left), day(leaf.NotAfter)).
			todo("renew it; with acme it should be new by now: `sallyport status` tells the last error")
	}
	return passed("%s, by %s, %s left", t.Host, issuer(leaf), days(left))
}

// judgeChain says what is wrong with the way from the leaf to a root.
func judgeChain(chain []*x509.Certificate, roots *x509.CertPool) (r result, bad bool) {
	leaf, last := chain[0], chain[len(chain)-1]
	o := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool(), CurrentTime: time.Now()}
	for _, c := range chain[1:] {
		o.Intermediates.AddCert(c)
	}
	_, err := leaf.Verify(o)
	switch {
	case err == nil:
		return result{}, false
	case selfIssued(leaf):
		return warned("the certificate is self-signed, %s left: browsers warn, phones and TURN/TLS refuse", days(time.Until(leaf.NotAfter))).
			todo("tls.source: acme, or files with a certificate of an authority that your devices trust"), true
	case selfIssued(last):
		return warned("the certificate is of a private authority, %s, that this machine does not trust", last.Subject).
			todo("install the authority on every device, phones too; here, SSL_CERT_FILE names it"), true
	}
	if unknown := (x509.UnknownAuthorityError{}); !asUnknown(err, &unknown) {
		return failed("the certificate does not hold: %v", err).todo("take another one"), true
	}
	return failed("the chain is not complete: the certificate of %s is missing", last.Issuer).
		todo("append the intermediate certificates to tls.cert_file (fullchain.pem), leaf first; phones do not fetch them"), true
}

func asUnknown(err error, into *x509.UnknownAuthorityError) bool {
	u, ok := err.(x509.UnknownAuthorityError)
	*into = u
	return ok
}

// noHandshake says why there is no TLS.
func noHandshake(err error, t *Target) result {
	if !isTLS(err) {
		return unreachable(err, t.HTTPSAddress, "listen.https")
	}
	return failed("no TLS with %s: %v", t.HTTPSAddress, reason(err)).
		todo("if Sallyport has no certificate yet, `sallyport status` and its log tell why; if something else listens there, stop it")
}

// isTLS tells errors of the handshake from those of the network.
func isTLS(err error) bool {
	text := reason(err).Error()
	return strings.HasPrefix(text, "tls: ") || strings.HasPrefix(text, "remote error: tls")
}

func selfIssued(c *x509.Certificate) bool { return bytes.Equal(c.RawIssuer, c.RawSubject) }

func names(c *x509.Certificate) []string {
	all := append([]string(nil), c.DNSNames...)
	for _, ip := range c.IPAddresses {
		all = append(all, ip.String())
	}
	if len(all) == 0 {
		all = append(all, "no name at all")
	}
	return all
}

// issuer is the shortest name of who signed.
func issuer(c *x509.Certificate) string {
	if c.Issuer.CommonName != "" {
		return c.Issuer.CommonName
	}
	return c.Issuer.String()
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

func days(d time.Duration) string {
	if d < 48*time.Hour {
		return fmt.Sprintf("%.0f hours", d.Hours())
	}
	return fmt.Sprintf("%.0f days", d.Hours()/24)
}

// checkVersions shakes hands with each version of TLS by itself.
func checkVersions(ctx context.Context, t *Target) result {
	accepted := map[uint16]bool{}
	for _, version := range []uint16{tls.VersionTLS13, tls.VersionTLS12, tls.VersionTLS11} {
		conn, err := t.dialTLS(ctx, func(c *tls.Config) { c.MinVersion, c.MaxVersion = version, version })
		if err == nil {
			_ = conn.Close()
		} else if !isTLS(err) {
			return unasked(err, t.HTTPSAddress, "tls.certificate")
		}
		accepted[version] = err == nil
	}
	switch {
	case accepted[tls.VersionTLS11]:
		return failed("TLS 1.1 is accepted").todo("it is not Sallyport that ends TLS here: something stands before it; refuse TLS 1.1 there")
	case !accepted[tls.VersionTLS13] && !accepted[tls.VersionTLS12]:
		return failed("neither TLS 1.3 nor 1.2 is accepted").todo("see tls.certificate: there may be no certificate to show")
	case !accepted[tls.VersionTLS13]:
		return warned("TLS 1.3 is refused").todo("it is not Sallyport that ends TLS here: something stands before it; allow TLS 1.3 there")
	case accepted[tls.VersionTLS12] == t.TLS13Only:
		if t.TLS13Only {
			return warned("TLS 1.2 is accepted although tls.min_version is 1.3").todo("restart Sallyport: the running one has another configuration")
		}
		return warned("TLS 1.2 is refused: old clients cannot connect").todo("tls.min_version: \"1.2\", unless that is meant")
	case t.TLS13Only:
		return passed("TLS 1.3, and nothing older as configured")
	}
	return passed("TLS 1.2 and 1.3")
}
