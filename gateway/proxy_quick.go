package gateway

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"math"
	"net"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A quick carries the requests that most are, those with no body or a small one and
// over no TLS, in the goroutine that has them. http.Transport, which carries all
// others, hands each request to two goroutines of the connection and back, so
// that bodies may go both ways at once.
type quick struct {
	dial func(context.Context, *upstream) (net.Conn, error)
	idle time.Duration // for which connections are kept

	mu     sync.Mutex // guards the following
	kept   map[*upstream]*shelf
	sweep  *time.Timer // nil if nothing is kept
	closed bool
}

// A shelf holds the lines to one upstream that are kept, the one used last at the end.
type shelf struct{ lines []*line }

// A line is one connection to an upstream. It belongs to one request at a time, or
// is kept for the next.
type line struct {
	net.Conn
	raw   syscall.RawConn
	in    *bufio.Reader
	limit io.LimitedReader // between Conn and in: heads have a limit
	since time.Time        // when it was kept
}

func newQuick(p *pool, idle time.Duration) *quick {
	return &quick{dial: p.dial, idle: idle, kept: map[*upstream]*shelf{}}
}

// suits reports whether q may carry req to u.
func (q *quick) suits(u *upstream, req *http.Request) bool {
	if _, small := req.Body.(*smallBody); !small && (req.ContentLength != 0 || req.Body != nil && req.Body != http.NoBody) {
		return false
	}
	return u.scheme == "http" && len(req.Trailer) == 0 && req.Header.Get("Expect") == ""
}

// roundTrip sends req, which suits, and returns the answer.
func (q *quick) roundTrip(u *upstream, req *http.Request, early hint) (*http.Response, error) {
	ctx := req.Context()
	for {
		l := q.take(u)
		fresh := l == nil
		if fresh {
			var err error
			if l, err = q.open(ctx, u); err != nil {
				return nil, err
			}
		}
		resp, silent, err := q.ask(u, l, req, early)
		if err == nil {
			return resp, nil
		}
		_ = l.Close()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if fresh || !silent || timedOut(err) || !safe(req.Method) {
			return nil, err
		}
		q.drop(u) // it had been closed meanwhile, as the others will be: the next one is new
	}
}

func (q *quick) open(ctx context.Context, u *upstream) (*line, error) {
	conn, err := q.dial(ctx, u)
	if err != nil {
		return nil, err
	}
	l := &line{Conn: conn, limit: io.LimitedReader{R: conn}}
	if s, ok := conn.(syscall.Conn); ok {
		l.raw, _ = s.SyscallConn() // fails only if closed
	}
	l.in = bufio.NewReaderSize(&l.limit, 4<<10)
	return l, nil
}

var requestBuffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// ask sends req on l and reads the head of the answer. After an error, silent says
// that nothing of an answer came.
func (q *quick) ask(u *upstream, l *line, req *http.Request, early hint) (resp *http.Response, silent bool, err error) {
	ctx := req.Context()
	_ = l.SetDeadline(time.Now().Add(headerTimeout)) // first, for it must not take the next one's place
	stop := context.AfterFunc(ctx, func() { _ = l.SetDeadline(longAgo) })
	buf := requestBuffers.Get().(*bytes.Buffer)
	defer requestBuffers.Put(buf)
	buf.Reset()
	if err := writeRequest(buf, req); err != nil {
		stop()
		return nil, false, err
	}
	l.limit.N = maxRespHeaders
	if _, err := l.Write(buf.Bytes()); err != nil {
		stop()
		return nil, true, err
	}
	if resp, err = readAnswer(l.in, req, early); err != nil {
		stop()
		return nil, l.limit.N == maxRespHeaders, err
	}
	l.limit.N = math.MaxInt64
	_ = l.SetReadDeadline(time.Time{})
	if ctx.Err() != nil { // its deadline may just have been lifted
		stop()
		return nil, false, ctx.Err()
	}
	body := &lineBody{ReadCloser: resp.Body, quick: q, upstream: u, line: l, stop: stop, reusable: !resp.Close && resp.StatusCode != http.StatusSwitchingProtocols}
	if resp.Body == http.NoBody {
		body.release(true)
	} else {
		resp.Body = body
	}
	return resp, false, nil
}

// writeRequest writes req, which suits.
func writeRequest(buf *bytes.Buffer, req *http.Request) error {
	if !oneLine(req.Host) {
		return errMalformed
	}
	put := buf.WriteString
	put(req.Method)
	put(" ")
	put(req.URL.RequestURI())
	put(" HTTP/1.1\r\nHost: ")
	put(req.Host)
	put("\r\n")
	for name, values := range req.Header {
		if name == "Content-Length" || name == "Host" {
			continue
		}
		for _, v := range values {
			if !oneLine(v) { // net/http has refused these
				return errMalformed
			}
			put(name)
			put(": ")
			put(v)
			put("\r\n")
		}
	}
	body, _ := req.Body.(*smallBody)
	switch {
	case body != nil:
		put("Content-Length: ")
		put(strconv.Itoa(len(body.whole)))
		put("\r\n\r\n")
		buf.Write(body.whole)
	case req.Method == http.MethodPost, req.Method == http.MethodPut, req.Method == http.MethodPatch: // RFC 9110 section 8.6
		put("Content-Length: 0\r\n\r\n")
	default:
		put("\r\n")
	}
	return nil
}

// oneLine reports whether s cannot break out of its line.
func oneLine(s string) bool {
	return strings.IndexByte(s, '\n') < 0 && strings.IndexByte(s, '\r') < 0 && strings.IndexByte(s, 0) < 0
}

// readAnswer reads the head of the final answer and hands on those before.
func readAnswer(in *bufio.Reader, req *http.Request, early hint) (*http.Response, error) {
	for {
		resp, err := http.ReadResponse(in, req)
		if err != nil || resp.StatusCode/100 != 1 || resp.StatusCode == http.StatusSwitchingProtocols {
			return resp, err
		}
		if early == nil {
			continue
		}
		if err := early(resp.StatusCode, textproto.MIMEHeader(resp.Header)); err != nil {
			return nil, err
		}
	}
}

// A lineBody is the body of an answer. At its end the line is kept.
type lineBody struct {
	io.ReadCloser
	quick    *quick
	upstream *upstream
	line     *line // nil when it was given back
	stop     func() bool
	reusable bool
}

// come reports whether something of it has come.
func (b *lineBody) come() bool { return b.line != nil && b.line.in.Buffered() > 0 }

// Read implements io.Reader.
func (b *lineBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.release(err == io.EOF)
	}
	return n, err
}

// Close implements io.Closer. It does not close the body of net/http, which would
// read all that is left.
func (b *lineBody) Close() error {
	b.release(false)
	return nil
}

func (b *lineBody) release(whole bool) {
	l := b.line
	if l == nil {
		return
	}
	b.line = nil
	if b.stop() && whole && b.reusable && l.in.Buffered() == 0 {
		b.quick.keep(b.upstream, l)
	} else {
		_ = l.Close()
	}
}
