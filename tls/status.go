package tls

import (
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"time"
)

// CertificateStatus is a snapshot of [Certificates].
type CertificateStatus struct {
	Source string   `json:"source"` // acme, files or selfsigned
	Names  []string `json:"names"`  // the names we want to be known by

	// Ready says that every handshake for Names can be answered.
	Ready bool `json:"ready"`

	// Covered are the names and addresses in the certificates in use.
	Covered []string `json:"covered"`

	Issuer    string    `json:"issuer"`     // of the first certificate; empty if there is none
	NotBefore time.Time `json:"not_before"` // of the first certificate
	NotAfter  time.Time `json:"not_after"`  // when the first of all certificates expires

	// PublicKey is the base64 SHA-256 of the first certificate's
	// SubjectPublicKeyInfo, the form browsers and curl take for a pin.
	PublicKey string `json:"public_key"`

	// LastError is why the last attempt to load, obtain or renew failed; empty
	// after a success. LastErrorAt is when.
	LastError   string    `json:"last_error"`
	LastErrorAt time.Time `json:"last_error_at"`
}

// Status returns what the certificates are now.
func (c *Certificates) Status() CertificateStatus {
	s := CertificateStatus{Source: c.cfg.Source, Names: slices.Clone(c.names)}
	leaves := c.provider.leaves()
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
	s.Ready = len(leaves) > 0 && (c.cfg.Source != SourceACME || len(leaves) == len(c.names))
	c.health.mu.Lock()
	defer c.health.mu.Unlock()
	if c.health.err != nil {
		s.LastError, s.LastErrorAt = c.health.err.Error(), c.health.at
	}
	return s
}

// notAfter is Status.NotAfter in Unix seconds, 0 if there is no certificate.
func (c *Certificates) notAfter() float64 {
	if t := c.Status().NotAfter; !t.IsZero() {
		return float64(t.Unix())
	}
	return 0
}
