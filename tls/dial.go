package tls

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"
)

var errForeign = errors.New("the certificate shown is not ours")

// Dial connects to a [Port] that shows these certificates, at host:port, as a
// browser's TURN client does: with our name, without ALPN. It trusts what we
// have at this moment and nothing else, and fails if that has expired.
func (c *Certificates) Dial(ctx context.Context, addr string) (net.Conn, error) {
	leaves := c.now.Load().leaves()
	if len(leaves) == 0 || len(c.always) == 0 {
		return nil, errNoCertificate
	}
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, &tls.Config{
		ServerName:         c.always[0],
		InsecureSkipVerify: true, // VerifyConnection does it: no CA need vouch for what we know
		VerifyConnection: func(s tls.ConnectionState) error {
			return verifyOurs(s.PeerCertificates[0], slices.Concat(leaves, c.now.Load().leaves()))
		},
	})
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, fmt.Errorf("handshake: %w", err)
	}
	return conn, nil
}

func verifyOurs(shown *x509.Certificate, ours []*x509.Certificate) error {
	if !slices.ContainsFunc(ours, func(c *x509.Certificate) bool { return bytes.Equal(c.Raw, shown.Raw) }) {
		return errForeign
	}
	if now := time.Now(); now.After(shown.NotAfter) {
		return fmt.Errorf("the certificate expired on %s", shown.NotAfter.Format(time.DateOnly))
	}
	return nil
}
