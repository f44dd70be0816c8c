package tls

import (
	"container/list"
	"context"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"slices"
	"time"
)

// A peeked conn is a TCP connection whose first bytes were read to classify it;
// Read returns them once more. Whatever is handed over has one underneath, so
// its Close is where an open connection stops counting.
//
// During a handshake it also carries the connection's slot. The slot is held
// from the moment the certificate is chosen until the handshake reads again:
// while it computes, not while it waits for the client. A thousand clients that
// stop in mid-handshake therefore hold no slot at all.
//
// Until it is handed over it belongs to the goroutine that serves it.
type peeked struct {
	net.Conn
	head []byte // what is still to be read again

	until time.Time // when its handshake must be over
	slots *slots    // nil outside handshakes
	held  bool

	unanswered *crowd // nil outside handshakes
	spot       *list.Element

	reader io.Reader // of what comes after head; nil: the connection
	writer io.Writer // of what is written; nil: the connection

	place  *place       // among the open ones; left by Close
	client *net.TCPAddr // whom a trusted proxy speaks for; nil: the other side itself
}

// Close closes the connection. It may be called from any goroutine.
func (c *peeked) Close() error {
	defer c.place.leave()
	return c.Conn.Close()
}

// RemoteAddr returns the address of the client, a *net.TCPAddr.
func (c *peeked) RemoteAddr() net.Addr {
	if c.client != nil {
		return c.client
	}
	return c.Conn.RemoteAddr()
}

func (c *peeked) Read(b []byte) (int, error) {
	if c.held {
		c.release()
	}
	if len(c.head) > 0 {
		n := copy(b, c.head)
		if c.head = c.head[n:]; len(c.head) == 0 {
			c.head = nil // of use no more
		}
		return n, nil
	}
	if c.unanswered != nil && c.spot == nil {
		c.spot = c.unanswered.enter(c)
	}
	if c.reader != nil {
		return c.reader.Read(b)
	}
	return c.Conn.Read(b)
}

func (c *peeked) Write(b []byte) (int, error) {
	if c.writer != nil {
		return c.writer.Write(b)
	}
	return c.Conn.Write(b)
}

// Divert makes from and to the ones that read from NetConn and write to it from now
// on, TLS records too. Nothing may be read or written meanwhile.
func (c *peeked) Divert(from io.Reader, to io.Writer) { c.reader, c.writer = from, to }

// Secure reports whether the stream came out of TLS.
func (c *peeked) Secure() bool { return false }

// NetConn returns the connection underneath, for socket options and for who has
// diverted c: reading from it directly would lose the first bytes.
func (c *peeked) NetConn() net.Conn { return c.Conn }

// classify finds out what c speaks. What it reads for that will be read again.
func (c *peeked) classify() (kind, error) {
	head, k, err := peek(c, classifyOuter)
	c.head = append(head, c.head...)
	return k, err
}

// readRecord reads on until head holds the first TLS record, whose header ends
// with its length (RFC 8446 §5.1). It takes no more memory than twice what has
// come. Records that are too long it leaves to crypto/tls to refuse.
func (c *peeked) readRecord() error {
	const header, most = 5, 1<<14 + 256
	for {
		want := header
		if len(c.head) >= header {
			want += int(binary.BigEndian.Uint16(c.head[3:]))
		}
		missing := want - len(c.head)
		if missing <= 0 || want > header+most {
			return nil
		}
		room := min(missing, max(512, len(c.head)))
		c.head = slices.Grow(c.head, room)
		n, err := c.Conn.Read(c.head[len(c.head) : len(c.head)+room])
		c.head = c.head[:len(c.head)+n]
		if err != nil && n == 0 {
			return err
		}
	}
}

// answered ends the time in which the handshake waits for the client; displaced
// is true if others have ended it before.
func (c *peeked) answered() (displaced bool) {
	if c.spot != nil {
		displaced = !c.unanswered.leave(c.spot)
	}
	c.unanswered, c.spot = nil, nil
	return displaced
}

// enter waits for a slot. It fails when too many wait already or ctx ends.
func (c *peeked) enter(ctx context.Context) error {
	if c.slots == nil || c.held {
		return nil
	}
	if err := c.slots.acquire(ctx); err != nil {
		return err
	}
	c.held = true
	return nil
}

func (c *peeked) release() {
	if c.held {
		c.held = false
		c.slots.release()
	}
}

// A secured conn is a finished TLS connection whose first inner bytes were read
// to classify it. Being a *tls.Conn in all but Read it has ConnectionState, by
// which net/http fills http.Request.TLS.
type secured struct {
	*tls.Conn
	head []byte // what is still to be read again
}

func (c *secured) Read(b []byte) (int, error) {
	if len(c.head) > 0 {
		n := copy(b, c.head)
		c.head = c.head[n:]
		return n, nil
	}
	return c.Conn.Read(b)
}

// Secure reports whether the stream came out of TLS.
func (c *secured) Secure() bool { return true }

// peek reads from c until classify knows what it carries. It returns the bytes
// read, at most headSize.
func peek(c net.Conn, classify func([]byte) (kind, bool)) ([]byte, kind, error) {
	head := make([]byte, 0, headSize)
	for {
		k, more := classify(head)
		if !more {
			return head, k, nil
		}
		n, err := c.Read(head[len(head):cap(head)])
		head = head[:len(head)+n]
		if err != nil && n == 0 {
			return head, kindUnknown, err
		}
	}
}
