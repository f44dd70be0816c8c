package tls

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"slices"
	"time"
)

// CertificateStatus is a snapshot of [Certificates].
type CertificateStatus struct {
	Source string   `json:"source"` // acme, files or selfsigned
	Names  []string `json:"names"`  // the names we want to be known by

	// Ready says that every handshake for Names can be answered with a
	// certificate that is valid now and covers the name.
	Ready bool `json:"ready"`

	// Covered are the names and addresses in the certificates in use.
	Covered []string `json:"covered"`

	// Expiry says when the certificate for each of Names expires; zero if there is
	// none.
	Expiry []Expiry `json:"expiry"`

	Issuer    string    `json:"issuer"`     // of the first certificate; empty if there is none
	NotBefore time.Time `json:"not_before"` // of the first certificate
	NotAfter  time.Time `json:"not_after"`  // when the first of all certificates expires

	// PublicKey is the base64 SHA-256 of the first certificate's
	// SubjectPublicKeyInfo, the form browsers and curl take for a pin.
	PublicKey string `json:"public_key"`

	// LastError is why the last attempt to load, obtain or renew a certificate
	// failed; empty once there is one, whoever obtained it. Another name's does
	// not clear it. LastErrorAt is when.
	LastError   string    `json:"last_error"`
	LastErrorAt time.Time `json:"last_error_at"`

	// NextAttempt is when a certificate that could not be obtained is tried for
	// again; zero if none is missing.
	NextAttempt time.Time `json:"next_attempt"`

	// Warning is what clients may have against the certificate in use, as far as
	// its files tell; empty if nothing.
	Warning string `json:"warning"`
}

// An Expiry is the end of the certificate for one name.
type Expiry struct {
	Name     string    `json:"name"`
	NotAfter time.Time `json:"not_after"`
}

// Status returns what the certificates are now.
func (c *Certificates) Status() CertificateStatus {
	now := c.now.Load()
	s := CertificateStatus{Source: now.cfg.Source, Names: slices.Clone(*c.wanted.Load())}
	leaves := now.leaves()
	for i, leaf := range leaves {
		s.Covered = append(s.Covered, leaf.DNSNames...)
		for _, ip := range leaf.IPAddresses {
			s.Covered = append(s.Covered, ip.String())
		}
		if i == 0 {
			s.Issuer = leaf.Issuer.CommonName
			s.NotBefore = leaf.NotBefore
			sum := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
			s.PublicKey = base64.StdEncoding.EncodeToString(sum[:])
		}
		if i == 0 || leaf.NotAfter.Before(s.NotAfter) {
			s.NotAfter = leaf.NotAfter
		}
	}
	for _, name := range s.Names {
		s.Expiry = append(s.Expiry, Expiry{name, expiry(leaves, name)})
	}
	s.Ready = ready(leaves, s.Names, time.Now())
	if f := now.health.last(); f.err != nil {
		s.LastError, s.LastErrorAt, s.NextAttempt = f.err.Error(), f.at, f.next
	}
	s.Warning = now.health.warning()
	return s
}

// ready reports whether for each of names there is a certificate that is valid
// now.
func ready(leaves []*x509.Certificate, names []string, now time.Time) bool {
	valid := slices.DeleteFunc(slices.Clone(leaves), func(leaf *x509.Certificate) bool {
		return now.Before(leaf.NotBefore) || now.After(leaf.NotAfter)
	})
	for _, name := range names {
		if !slices.ContainsFunc(valid, func(leaf *x509.Certificate) bool { return leaf.VerifyHostname(name) == nil }) {
			return false
		}
	}
	return len(valid) > 0
}

// expiry is when the last of the certificates for name expires, zero if there is
// none.
func expiry(leaves []*x509.Certificate, name string) (last time.Time) {
	for _, leaf := range leaves {
		if leaf.VerifyHostname(name) == nil && leaf.NotAfter.After(last) {
			last = leaf.NotAfter
		}
	}
	return last
}

// notAfter is Status.NotAfter in Unix seconds, 0 if there is no certificate.
func (c *Certificates) notAfter() float64 { return seconds(c.Status().NotAfter) }

// seconds is t as metrics have it: Unix seconds, 0 for the zero time.
func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.Unix())
}
