package gateway

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"sync"
	"syscall"
	"time"
)

// A quick carries the requests that most are, GET, HEAD and OPTIONS without a body
// and over no TLS, in the goroutine that has them. http.Transport, which carries all
// others, hands each request to two goroutines of the connection and back,
// so that bodies may go both ways at once. These have none, and may be sent again.
type quick struct {
	dial func(context.Context, *upstream) (net.Conn, error)
	idle time.Duration // for which connections are kept

	mu     sync.Mutex // guards the following
	kept   map[*upstream][]*line
	sweep  *time.Timer // nil if nothing is kept
	closed bool
}

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
	return &quick{dial: p.dial, idle: idle, kept: map[*upstream][]*line{}}
}

// suits reports whether q may carry req to u.
func (q *quick) suits(u *upstream, req *http.Request) bool {
	return safe(req.Method) && u.scheme == "http" && req.ContentLength == 0 &&
		(req.Body == nil || req.Body == http.NoBody) && len(req.Trailer) == 0 && req.Header.Get("Expect") == ""
}

// roundTrip is http.RoundTripper's for requests that suit.
func (q *quick) roundTrip(u *upstream, req *http.Request) (*http.Response, error) {
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
		if trace := httptrace.ContextClientTrace(ctx); trace != nil && trace.GotConn != nil {
			trace.GotConn(httptrace.GotConnInfo{Conn: l.Conn, Reused: !fresh})
		}
		resp, silent, err := q.ask(u, l, req)
		if err == nil {
			return resp, nil
		}
		_ = l.Close()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if fresh || !silent || timedOut(err) {
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
func (q *quick) ask(u *upstream, l *line, req *http.Request) (resp *http.Response, silent bool, err error) {
	ctx := req.Context()
	_ = l.SetReadDeadline(time.Now().Add(headerTimeout)) // first, for it must not take the next one's place
	stop := context.AfterFunc(ctx, func() { _ = l.SetDeadline(longAgo) })
	buf := requestBuffers.Get().(*bytes.Buffer)
	defer requestBuffers.Put(buf)
	buf.Reset()
	if err := req.Write(buf); err != nil {
		stop()
		return nil, false, err
	}
	l.limit.N = maxRespHeaders
	if _, err := l.Write(buf.Bytes()); err != nil {
		stop()
		return nil, true, err
	}
	if resp, err = readAnswer(ctx, l.in, req); err != nil {
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

// readAnswer reads the head of the final answer and hands on those before.
func readAnswer(ctx context.Context, in *bufio.Reader, req *http.Request) (*http.Response, error) {
	for {
		resp, err := http.ReadResponse(in, req)
		if err != nil || resp.StatusCode >= 200 || resp.StatusCode == http.StatusSwitchingProtocols {
			return resp, err
		}
		if trace := httptrace.ContextClientTrace(ctx); trace != nil && trace.Got1xxResponse != nil {
			if err := trace.Got1xxResponse(resp.StatusCode, textproto.MIMEHeader(resp.Header)); err != nil {
				return nil, err
			}
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
