package gateway

import (
	"context"
	"net"
	"strings"
)

const (
	// keepAliveProbes of TCP may stay without an answer, each for keepAlive.
	keepAliveProbes = 4
	// peerLost is after how long a peer that does not answer is given up: the same
	// whether it was to acknowledge something or only to say that it lives.
	peerLost = (1 + keepAliveProbes) * keepAlive
)

// address is where u is dialled, as http.Transport writes it.
func (u *upstream) address() string {
	if u.url.Port() != "" {
		return u.host
	}
	port := "80"
	if u.scheme == "https" {
		port = "443"
	}
	return net.JoinHostPort(strings.Trim(u.host, "[]"), port)
}

// dial connects to u. Its error is a *dialError.
func (p *pool) dial(ctx context.Context, u *upstream) (net.Conn, error) {
	if u.scheme == "https" {
		return p.dialSecure(ctx, "tcp", u.address())
	}
	return p.dialPlain(ctx, "tcp", u.address())
}

func (p *pool) dialPlain(ctx context.Context, network, addr string) (net.Conn, error) {
	if path, ok := p.sockets[addr]; ok {
		network, addr = "unix", path
	}
	d := net.Dialer{Timeout: dialTimeout, KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: keepAlive, Interval: keepAlive, Count: keepAliveProbes,
	}}
	conn, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, &dialError{err}
	}
	return conn, nil
}

func (p *pool) dialSecure(ctx context.Context, network, addr string) (net.Conn, error) {
	raw, err := p.dialPlain(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		_ = raw.Close()
		return nil, &dialError{err}
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := p.secure.Handshake(ctx, raw, host)
	if err != nil {
		_ = raw.Close()
		return nil, &dialError{&handshakeError{err}}
	}
	return conn, nil
}
