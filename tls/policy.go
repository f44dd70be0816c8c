package tls

import (
	"crypto/tls"
	"slices"

	"github.com/mholt/acmez/v3"
)

// A policy is what a reload may change about handshakes. It is replaced as a
// whole and never modified.
type policy struct {
	clients *clientCAs

	// base is what connections begin with. It owns the keys of the session
	// tickets, which crypto/tls makes and rotates, so policies share it as long as
	// the sessions of one may be resumed under the other.
	base *tls.Config

	usual   *tls.Config
	silent  *tls.Config // for clients whose ALPN protocols are all foreign to us
	unasked *tls.Config // for clients that are never asked for a certificate
}

// choose is the GetConfigForClient of all connections. RFC 7301 §3.2 refuses a
// client whose protocols are all foreign to us. We look at the first bytes
// anyway, so that client may go on without ALPN.
func (c *Certificates) choose(h *tls.ClientHelloInfo) (*tls.Config, error) {
	p := c.current.Load()
	ours := func(proto string) bool { return slices.Contains(p.usual.NextProtos, proto) }
	if len(h.SupportedProtos) > 0 && !slices.ContainsFunc(h.SupportedProtos, ours) {
		return p.silent, nil
	}
	if !asked(h.SupportedProtos) {
		return p.unasked, nil
	}
	return p.usual, nil
}

// server is the configuration of a new connection.
func (c *Certificates) server() *tls.Config { return c.current.Load().base }

// policy is that of new connections, which comes after old, nil for none.
func (c *Certificates) policy(version uint16, clients *clientCAs, old *policy) *policy {
	p := &policy{clients: clients}
	if old != nil && old.clients.same(clients) {
		p.clients, p.base = old.clients, old.base
	} else { // sessions keep the certificate they began with, or that there was none
		p.base = &tls.Config{GetConfigForClient: c.choose}
	}
	p.unasked = &tls.Config{
		GetCertificate: c.certificate,
		MinVersion:     version,
		CipherSuites: []uint16{ // of TLS 1.2: forward secret and authenticated
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
			tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		},
		NextProtos: []string{"h2", "http/1.1", "stun.turn", "stun.nat-discovery"}, // RFC 7301, RFC 7443
	}
	if c.now.Load().cfg.Source == SourceACME {
		p.unasked.NextProtos = append(p.unasked.NextProtos, acmez.ACMETLS1Protocol) // RFC 8737
	}
	p.usual = p.unasked.Clone()
	p.clients.ask(p.usual, p.base)
	p.silent = p.usual.Clone()
	p.silent.NextProtos = nil
	return p
}
