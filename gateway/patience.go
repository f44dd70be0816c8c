package gateway

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

// clientPatience is how long a client may keep us waiting for the next bytes of
// its request, or take none of the bytes of an answer. It is no limit on the
// whole: an upload or a download that moves may last for hours.
const clientPatience = 60 * time.Second

// What reading the body of a client that fell silent, or left, gives.
var (
	errStalled = errors.New("client stopped sending the request, or sent it slower than proxy.min_rate")
	errLeft    = errors.New("client left in the middle of the request")
)

// A patient is the http.ResponseWriter of one request. It limits every single
// wait for the client, where net/http knows only limits on the whole: without it,
// somebody who announces a body and never sends it, or asks for a file and never
// reads it, keeps a connection to us and one to Mattermost for as long as he likes.
//
// One timer of the request looks whether a wait has lasted too long, and only then
// sets a deadline, which is over and ends it. A deadline for every wait would
// cost more than what is waited for: on HTTP/2 each is a message to the
// connection's goroutine. None may hold when nothing waits: net/http reads ahead on
// HTTP/1 to notice that a client has gone, and on HTTP/2 a deadline ends the stream
// even if nothing waits.
//
// A body must also come at minRate: else a byte a minute would do. (An answer needs
// no such rule: it is written in pieces of 32 KiB, and each is one wait.)
type patient struct {
	http.ResponseWriter
	control http.ResponseController // of that
	limit   time.Duration
	minRate int64 // bytes a second of waiting for the body, over half of limit or more; 0 = any
	h1      bool
	conn    *strictConn // nil on HTTP/2

	mu      sync.Mutex  // guards the following
	timer   *time.Timer // nil until something has waited
	unread  bool        // something of the body may still be unread
	over    bool        // the request has ended, or the connection was hijacked: hands off
	sending time.Time   // since when the client must take bytes; zero if nobody waits for that
	reading time.Time   // since when it must send more of the body; zero as well
	late    bool        // it has not sent it in time

	waited time.Duration // for the body, since the rate was last judged; less what of the present wait was before
	moved  int64         // bytes of it since then
}

// newPatient returns the pair for a handler: w and r, with limit on every wait.
func newPatient(w http.ResponseWriter, r *http.Request, limit time.Duration, minRate int64) (*patient, *http.Request) {
	p := &patient{
		ResponseWriter: w, control: *http.NewResponseController(w), limit: limit, minRate: minRate,
		h1: r.ProtoMajor == 1 || r.Method == preface, conn: strictOf(r),
	}
	if r.Body != nil && r.Body != http.NoBody {
		p.unread = true
		body := r.Body
		r = r.WithContext(r.Context()) // net/http looks at the body of its own request
		r.Body = &patientBody{body, p}
	}
	return p, r
}

// Write implements http.ResponseWriter.
func (p *patient) Write(b []byte) (int, error) {
	p.wait(&p.sending)
	defer p.done(&p.sending)
	return p.ResponseWriter.Write(b)
}

// FlushError implements what http.ResponseController looks for.
func (p *patient) FlushError() error {
	p.wait(&p.sending)
	defer p.done(&p.sending)
	return p.control.Flush()
}

// Hijack implements http.Hijacker.
func (p *patient) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := p.control.Hijack()
	if err == nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.end()
		if p.conn != nil {
			p.conn.stepAside()
		}
	}
	return conn, rw, err
}

// Unwrap lets http.ResponseController reach the rest.
func (p *patient) Unwrap() http.ResponseWriter { return p.ResponseWriter }

// wait begins a wait for the client.
func (p *patient) wait(since *time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		return
	}
	*since = time.Now()
	if p.timer == nil {
		p.timer = time.AfterFunc(p.limit, p.look)
	}
}

// done ends it.
func (p *patient) done(since *time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	*since = time.Time{}
}

// look ends waits that have lasted too long.
func (p *patient) look() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		return
	}
	now := time.Now()
	next := p.limit
	if !p.reading.IsZero() {
		left := p.limit - now.Sub(p.reading)
		if left <= 0 || p.crawls(now) {
			p.late = true
			_ = p.control.SetReadDeadline(longAgo) // fails only if the connection does, as the read will find out
		} else {
			next = min(next, left)
		}
	}
	if !p.sending.IsZero() {
		// On HTTP/1 that may be a wait for bytes, first: before an answer begins,
		// net/http reads what the handler left of the body.
		left := p.limit - now.Sub(p.sending)
		if left <= 0 && p.h1 && p.unread {
			_ = p.control.SetReadDeadline(longAgo)
			left += p.limit
		}
		if left <= 0 {
			_ = p.control.SetWriteDeadline(longAgo)
		} else {
			next = min(next, left)
		}
	}
	p.timer.Reset(next)
}

// crawls judges the rate of a body that is being waited for, if it was long enough
// to tell. p.mu is held.
func (p *patient) crawls(now time.Time) bool {
	present := now.Sub(p.reading)
	waited := p.waited + present
	if waited < p.limit/2 {
		return false
	}
	slow := float64(p.moved) < float64(p.minRate)*waited.Seconds()
	p.waited, p.moved = -present, 0
	return slow
}

// finish is called when the handler returns. The deadlines it leaves are for
// what net/http does then: send the rest, and on HTTP/1 read what is left of
// the body. It lifts them itself.
func (p *patient) finish() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		return
	}
	p.end()
	now := time.Now()
	_ = p.control.SetWriteDeadline(now.Add(2 * p.limit))
	if p.h1 && p.unread {
		_ = p.control.SetReadDeadline(now.Add(p.limit))
	}
}

// end stops the looking. p.mu is held.
func (p *patient) end() {
	p.over = true
	if p.timer != nil {
		p.timer.Stop()
	}
}

// stalled reports whether the client has not sent the body in time. net/http
// cancels the context of a request then, too, before whoever reads the body
// learns why: that is no sign of the client having left.
func (p *patient) stalled() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.late
}

// patientOf is the patient that w wraps, nil if there is none.
func patientOf(w http.ResponseWriter) *patient {
	for {
		if p, ok := w.(*patient); ok {
			return p
		}
		u, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return nil
		}
		w = u.Unwrap()
	}
}

// A patientBody is the body of a request. The transport may read it even after
// the handler has returned; then it has no deadline, and nothing to read.
type patientBody struct {
	io.ReadCloser
	patient *patient
}

// Read implements io.Reader.
func (b *patientBody) Read(buf []byte) (int, error) {
	b.patient.wait(&b.patient.reading)
	n, err := b.ReadCloser.Read(buf)
	b.patient.got(n, err)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = errStalled
	case err != nil && err != io.EOF && b.patient.conn != nil && b.patient.conn.broken.Load() != 0:
		err = errMalformed // net/http has other names for it
	case err != nil && strings.Contains(err.Error(), "declared a Content-Length"): // HTTP/2's, which has no name
		err = errMalformed
	case errors.Is(err, io.ErrUnexpectedEOF), errors.As(err, new(*net.OpError)):
		err = fmt.Errorf("%w: %w", errLeft, err)
	}
	return n, err
}

// got ends a wait for more of the body; err is what it gave beside n bytes.
func (p *patient) got(n int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.reading.IsZero() {
		p.waited += time.Since(p.reading)
		p.moved += int64(n)
	}
	p.reading = time.Time{}
	if err != nil {
		p.unread = false
	}
}
