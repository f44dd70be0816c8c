package tls

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/mholt/acmez/v3"
)

// Why a connection is not handed over.
var (
	errUnknown   = errors.New("unknown protocol")
	errUntrusted = errors.New("PROXY header from an address that is not in proxy.trusted_proxies")
	errCrowded   = errors.New("too many connections from the address in the PROXY header")
	errChallenge = errors.New("challenge answered") // not a failure
)

// serve finds out what a visit speaks and hands it over, or closes it.
func (p *Port) serve(ctx context.Context, v *visit) {
	raw := v.conn
	tune(raw.Conn)
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	to, c, err := p.route(ctx, v)
	if !stop() {
		return // closed already
	}
	if err != nil {
		raw.Close()
		if !errors.Is(err, errChallenge) {
			p.opts.Logger.Debug("connection refused", "remote", raw.RemoteAddr().String(), "err", err)
		}
		return
	}
	// A server that does not accept for that long is as good as gone.
	ctx, cancel := context.WithTimeout(ctx, p.opts.FirstBytes)
	defer cancel()
	if !to.push(ctx, c) {
		raw.Close()
		p.metrics.refused.WithLabelValues("queue").Inc()
	}
}

// tune sets the socket options that media and WebSockets want.
func tune(c net.Conn) {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	// These fail only on a connection that is closed already, as the first
	// read will find out.
	_ = tcp.SetNoDelay(true)
	_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{
		Enable: true, Idle: 15 * time.Second, Interval: 15 * time.Second, Count: 4,
	})
}

// route returns where a visit belongs and the connection to hand over.
func (p *Port) route(ctx context.Context, v *visit) (*queue, net.Conn, error) {
	raw := v.conn
	_ = raw.SetReadDeadline(time.Now().Add(p.opts.FirstBytes))
	k, err := raw.classify()
	if err == nil && k == kindProxy {
		if err = p.introduce(v); err != nil {
			p.count("proxy_refused", "plain")
			if errors.Is(err, errUntrusted) && p.complain.allow(complainEvery) {
				p.opts.Logger.Warn("PROXY header refused", "remote", remoteIP(raw.Conn).String(), "err", err)
			}
			return nil, nil, err
		}
		k, err = raw.classify() // another header is not known any more
	}
	if err != nil {
		p.count(endOf(err), "plain")
		return nil, nil, fmt.Errorf("read first bytes: %w", err)
	}
	_ = raw.SetReadDeadline(time.Time{})
	if p.plainOnly && k != kindHTTP {
		k = kindUnknown
	}
	switch k {
	case kindTLS:
		return p.routeTLS(ctx, raw)
	case kindSTUN:
		p.count("turn", "plain")
		return p.turn, raw, nil
	case kindICE:
		p.count("ice", "plain")
		return p.ice, raw, nil
	case kindHTTP:
		p.count("redirect", "plain")
		return p.plain, raw, nil
	}
	p.count("unknown", "plain")
	return nil, nil, errUnknown
}

// introduce reads the PROXY header by which a trusted proxy says whom it speaks
// for. From then on the visit is the client's, also as far as limits go.
func (p *Port) introduce(v *visit) error {
	if !contains(v.trusted, remoteIP(v.conn.Conn)) {
		return errUntrusted
	}
	client, rest, err := readProxy(v.conn.Conn, v.conn.head)
	if err != nil {
		return err
	}
	v.conn.head = rest
	if !client.IsValid() {
		return nil
	}
	v.conn.client = net.TCPAddrFromAddrPort(client)
	from := v.source(v.conn)
	for _, move := range []struct {
		place  *place
		prefix string
	}{{v.conn.place, "open_"}, {v.pending, ""}} {
		if limit := move.place.move(from); limit != "" {
			p.metrics.refused.WithLabelValues(move.prefix + limit).Inc()
			return errCrowded
		}
	}
	return nil
}

// routeTLS does the same for a connection that begins with a ClientHello.
func (p *Port) routeTLS(ctx context.Context, raw *peeked) (*queue, net.Conn, error) {
	c, err := p.handshake(ctx, raw)
	if err != nil {
		return nil, nil, fmt.Errorf("handshake: %w", err)
	}
	return p.routeInner(c)
}

// routeInner does the same once the handshake is over.
func (p *Port) routeInner(c *tls.Conn) (*queue, net.Conn, error) {
	alpn := c.ConnectionState().NegotiatedProtocol
	switch alpn {
	case "h2":
		p.count("http", alpn)
		return p.http, c, nil
	case acmez.ACMETLS1Protocol:
		p.count("acme", alpn)
		c.Close() // says goodbye properly; serve closes the socket
		return nil, nil, errChallenge
	case "":
		alpn = "none"
	}
	_ = c.SetReadDeadline(time.Now().Add(p.opts.Silence))
	head, k, err := peek(c, classifyInner)
	if err != nil {
		p.count(endOf(err), alpn)
		return nil, nil, fmt.Errorf("read first bytes inside TLS: %w", err)
	}
	_ = c.SetReadDeadline(time.Time{})
	s := &secured{Conn: c, head: head}
	if k == kindSTUN {
		p.count("turn", alpn)
		return p.turn, s, nil
	}
	p.count("http", alpn)
	return p.http, s, nil
}

// handshake finishes the TLS handshake on raw, within PortOptions.Handshake.
//
// Strangers leave handshakes half-open by the thousand, and what each of them
// costs is the stack of this goroutine and what crypto/tls holds. So the first
// record is read before crypto/tls is entered, which makes both grow.
func (p *Port) handshake(ctx context.Context, raw *peeked) (*tls.Conn, error) {
	start := time.Now()
	raw.until = start.Add(p.opts.Handshake)
	_ = raw.SetDeadline(raw.until)
	err := raw.readRecord()
	var c *tls.Conn
	if err == nil {
		c, err = p.agree(ctx, raw)
	}
	p.metrics.handshakes.WithLabelValues(handshakeResult(err)).Inc()
	if err != nil {
		return nil, err
	}
	_ = raw.SetDeadline(time.Time{})
	p.metrics.session(c)
	p.metrics.duration.Observe(time.Since(start).Seconds())
	return c, nil
}

// agree is crypto/tls's part of the handshake.
func (p *Port) agree(ctx context.Context, raw *peeked) (*tls.Conn, error) {
	raw.slots, raw.unanswered = p.slots, p.unanswered
	c := tls.Server(raw, p.certs.server())
	err := c.HandshakeContext(ctx)
	raw.release()
	if crowded := raw.answered(); crowded && err != nil {
		err = errDisplaced
	}
	return c, err
}

func handshakeResult(err error) string {
	ne, isNet := errors.AsType[net.Error](err)
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, errNoCertificate):
		return "no_certificate"
	case errors.Is(err, errBusy):
		return "busy"
	case errors.Is(err, errDisplaced):
		return "displaced"
	case isNet && ne.Timeout():
		return "timeout"
	}
	return "error"
}

// count records what a connection turned out to be. Both labels come from fixed
// sets: alpn is one of ours, "none", or "plain" without TLS.
func (p *Port) count(kind, alpn string) {
	p.metrics.connections.WithLabelValues(p.port, kind, alpn).Inc()
}

// endOf names the reason why a client did not say what it speaks.
func endOf(err error) string {
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		return "silent"
	}
	return "closed"
}
