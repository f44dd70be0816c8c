package tls

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// parseChain reads the certificates of pair and puts them in the order in which
// TLS 1.2 wants them: each behind the one it signed. Files that were put together
// by hand often have them otherwise. The leaf stays first; what signed none of
// the others comes last.
func parseChain(pair *tls.Certificate) ([]*x509.Certificate, error) {
	rest := make([]*x509.Certificate, 0, len(pair.Certificate))
	for i, der := range pair.Certificate {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("certificate %d of the file: %w", i+1, err)
		}
		rest = append(rest, c)
	}
	chain, rest := rest[:1:1], rest[1:]
	for {
		last := chain[len(chain)-1]
		next := slices.IndexFunc(rest, func(c *x509.Certificate) bool { return signed(c, last) })
		if signsItself(last) || next < 0 {
			break
		}
		chain, rest = append(chain, rest[next]), slices.Delete(rest, next, next+1)
	}
	chain = append(chain, rest...)
	pair.Certificate = nil
	for _, c := range chain {
		pair.Certificate = append(pair.Certificate, c.Raw)
	}
	return chain, nil
}

// signed reports whether by signed c.
func signed(by, c *x509.Certificate) bool {
	return bytes.Equal(by.RawSubject, c.RawIssuer) && c.CheckSignatureFrom(by) == nil
}

func signsItself(c *x509.Certificate) bool {
	return bytes.Equal(c.RawSubject, c.RawIssuer) && c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil
}

// uncovered returns the first of names that leaf is not for, "" if it is for all.
func uncovered(leaf *x509.Certificate, names []string) string {
	for _, name := range names {
		if leaf.VerifyHostname(name) != nil {
			return name
		}
	}
	return ""
}

// objection is what clients that want one of names will have against a chain,
// "" if nothing. Roots are those that clients have; nil stands for this machine's.
// Phones do not look for intermediate certificates that are missing, and desktop
// browsers do, so administrators hear of it last.
func objection(chain []*x509.Certificate, names []string, roots *x509.CertPool) string {
	leaf := chain[0]
	if name := uncovered(leaf, names); name != "" {
		return fmt.Sprintf("it is not for %s but for %s", name, strings.Join(leaf.DNSNames, ", "))
	}
	if signsItself(leaf) {
		return "it is self-signed: browsers warn of it, and mobile apps refuse it"
	}
	if roots == nil {
		var err error
		if roots, err = x509.SystemCertPool(); err != nil || roots.Equal(x509.NewCertPool()) {
			return "" // nothing to compare with
		}
	}
	between := x509.NewCertPool()
	top := leaf
	for _, c := range chain[1:] {
		between.AddCert(c)
		if signed(c, top) {
			top = c
		}
	}
	_, err := leaf.Verify(x509.VerifyOptions{Intermediates: between, Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if !errors.As(err, new(x509.UnknownAuthorityError)) || signsItself(top) { // a private CA may be what is wanted
		return ""
	}
	return fmt.Sprintf("its chain is incomplete: the file ends with %q, whose issuer %q is neither in it nor among the roots of this machine; append the CA's intermediate certificates",
		top.Subject.CommonName, top.Issuer.CommonName)
}
