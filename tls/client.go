package tls

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
)

var errNoRoots = errors.New("no certificate in it: PEM is needed")

// A Client makes TLS connections to servers that a given CA vouches for.
type Client struct {
	config *tls.Config
	roots  []byte // PEM; nil: those of the system
}

// NewClient returns a Client that trusts the CAs in caFile, PEM, or those of the
// system if that is empty. Servers must have a certificate for serverName; if that
// is empty, for the name they are dialled by.
func NewClient(caFile, serverName string) (*Client, error) {
	c := &Client{config: &tls.Config{
		ServerName: serverName, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"},
		ClientSessionCache: tls.NewLRUClientSessionCache(0),
	}}
	if caFile == "" {
		return c, nil
	}
	var err error
	if c.roots, err = os.ReadFile(caFile); err != nil {
		return nil, err
	}
	c.config.RootCAs = x509.NewCertPool()
	if !c.config.RootCAs.AppendCertsFromPEM(c.roots) {
		return nil, fmt.Errorf("read %s: %w", caFile, errNoRoots)
	}
	return c, nil
}

// SameRoots reports whether o trusts the CAs that c trusts.
func (c *Client) SameRoots(o *Client) bool { return bytes.Equal(c.roots, o.roots) }

// Handshake makes conn, which leads to host, a TLS connection. After an error conn
// is still the caller's to close.
func (c *Client) Handshake(ctx context.Context, conn net.Conn, host string) (net.Conn, error) {
	config := c.config
	if config.ServerName == "" {
		config = config.Clone()
		config.ServerName = host
	}
	secure := tls.Client(conn, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("TLS handshake: %w", err)
	}
	return secure, nil
}
