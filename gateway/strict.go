package gateway

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"sallyport/tls"
)

// errMalformed is what reading a body gives whose framing is not sound.
var errMalformed = errors.New("malformed request")

// What net/http reads in place of the rest of a request that must not pass. It
// comes as bytes and not as an error, which would end the request before it, too.
var (
	// poisonedHead makes the answer 400 wherever it comes, in a line or at its
	// beginning.
	poisonedHead = "\x00\r\n\r\n"

	// poisonedChunk makes a chunk malformed wherever in its framing it comes: it
	// is no size, no line end, and longer than the longest line.
	poisonedChunk = strings.Repeat("\x00", 2*bufferedHead)
)

// bufferedHead is the size of the buffer through which net/http reads.
const bufferedHead = 4 << 10

// A strictListener lets no HTTP/1 request pass that two parsers could take for
// different ones (see framing): net/http forgives many of them, and what it
// hands on no longer shows it. HTTP/2 frames leave no such doubt; its
// connections pass as they are, for net/http knows them by their type.
type strictListener struct {
	net.Listener
	refused prometheus.Counter
}

// Accept implements net.Listener.
func (l strictListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	s := &strictConn{Conn: c, refused: l.refused}
	secure, ok := c.(interface{ ConnectionState() tls.ConnectionState })
	switch {
	case !ok:
		return s, nil
	case secure.ConnectionState().NegotiatedProtocol == "h2":
		return c, nil
	}
	return &strictSecure{s, secure.ConnectionState}, nil
}

// A strictConn is an HTTP/1 connection whose requests are looked at as they
// pass.
type strictConn struct {
	net.Conn
	refused prometheus.Counter

	framing framing // this and the next belong to who reads
	poison  string  // still to be read

	aside  bool         // set once, while nobody reads
	tunnel atomic.Bool  // a request to upgrade has come: what is behind it was not looked at
	served atomic.Int64 // requests that handlers got
	broken atomic.Int64 // number of the request whose body is malformed; 0: none
}

// A strictSecure is one inside TLS, by which net/http fills http.Request.TLS.
type strictSecure struct {
	*strictConn
	state func() tls.ConnectionState
}

// ConnectionState returns what the handshake agreed on.
func (c *strictSecure) ConnectionState() tls.ConnectionState { return c.state() }

// Read implements net.Conn.
func (c *strictConn) Read(b []byte) (int, error) {
	if c.aside {
		return c.Conn.Read(b)
	}
	if c.framing.fault == "" {
		n, err := c.Conn.Read(b)
		good := c.framing.scan(b[:n])
		if c.framing.at == inTunnel {
			c.tunnel.Store(true)
		}
		if good == n {
			return n, err
		}
		c.refuse()
		if good > 0 {
			return good, nil
		}
	}
	if c.poison == "" {
		return 0, errMalformed
	}
	n := copy(b, c.poison)
	c.poison = c.poison[n:]
	return n, nil
}

// NetConn returns the connection below, for who looks for the socket: reading from
// it would pass by what is looked for here.
func (c *strictConn) NetConn() net.Conn { return c.Conn }

// refuse is called once, when the framing has found a fault.
func (c *strictConn) refuse() {
	c.refused.Inc()
	if c.framing.inHead() {
		c.poison = poisonedHead
	} else {
		c.poison = poisonedChunk
		c.broken.Store(int64(c.framing.heads))
	}
}

// CloseWrite says that no more will be sent, if the protocol below can.
func (c *strictConn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return errors.ErrUnsupported
}

// stepAside ends the looking: from here on it is no HTTP. Nobody may read
// meanwhile. After a fault there is nothing more to read.
func (c *strictConn) stepAside() {
	c.aside = c.framing.fault == ""
	c.poison = ""
}

// serve counts the request that a handler now gets, and reports whether its
// body is known to be malformed, as it is if that came along with the head.
func (c *strictConn) serve() (malformed bool) { return c.served.Add(1) == c.broken.Load() }

// strictKey is the context key of a connection's *strictConn.
type strictKey struct{}

// withStrict is the http.Server.ConnContext by which handlers find it.
func withStrict(ctx context.Context, c net.Conn) context.Context {
	switch c := c.(type) {
	case *strictConn:
		return context.WithValue(ctx, strictKey{}, c)
	case *strictSecure:
		return context.WithValue(ctx, strictKey{}, c.strictConn)
	}
	return ctx
}

// strictOf is the connection r came on, nil if it is looked at by nobody.
func strictOf(r *http.Request) *strictConn {
	c, _ := r.Context().Value(strictKey{}).(*strictConn)
	return c
}
