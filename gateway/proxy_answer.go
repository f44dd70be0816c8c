package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// errBrokenOff says that an upstream ended in the middle of an answer.
var errBrokenOff = errors.New("upstream broke off its answer")

// answer hands resp on to the client. If that fails the connection or stream is
// aborted, so that the client does not take what it has for the whole.
func (p *proxy) answer(rec *recorder, resp *http.Response, x *exchange) {
	body := io.ReadCloser(&answerBody{p.spool.download(x.spool, resp), resp.Request.Context(), x})
	defer func() { _ = body.Close() }() // nothing more is asked of it
	announced := len(resp.Trailer)
	x.answerHeader(rec.Header(), resp)
	rec.WriteHeader(resp.StatusCode)
	if err := p.copyAnswer(rec, body, resp); err != nil {
		panic(http.ErrAbortHandler)
	}
	if len(resp.Trailer) > 0 {
		_ = rec.flush() // net/http writes trailers only behind a body in chunks
		trailers(rec.Header(), resp.Trailer, announced)
	}
}

// answerHeader puts into h what the header of resp says, and what we add.
func (x *exchange) answerHeader(h http.Header, resp *http.Response) {
	copyEndToEnd(h, resp.Header)
	if len(resp.Trailer) > 0 {
		h["Trailer"] = []string{strings.Join(slices.Collect(maps.Keys(resp.Trailer)), ", ")}
	}
	if x.hsts != "" && h.Get("Strict-Transport-Security") == "" {
		h["Strict-Transport-Security"] = []string{x.hsts}
	}
	if x.robots != "" && h.Get("X-Robots-Tag") == "" {
		h["X-Robots-Tag"] = []string{x.robots}
	}
	if h.Get(requestIDHeader) == "" {
		h[requestIDHeader] = []string{x.id}
	}
}

// copyAnswer copies the body of an answer. Whatever comes goes out at once, but the
// end, which goes out by itself, together with what came with it.
func (p *proxy) copyAnswer(rec *recorder, body io.Reader, resp *http.Response) error {
	if resp.ContentLength == 0 || resp.Body == http.NoBody {
		return nil
	}
	if l, ok := resp.Body.(*lineBody); resp.ContentLength < 0 && !(ok && l.come()) {
		if err := rec.flush(); err != nil { // the body may take its time
			return err
		}
	}
	buf := p.buffers.Get()
	defer p.buffers.Put(buf)
	for {
		n, err := body.Read(buf)
		if n > 0 {
			if _, err := rec.Write(buf[:n]); err != nil {
				return err
			}
			if err == nil && rec.bytes != resp.ContentLength {
				if err := rec.flush(); err != nil {
					return err
				}
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// trailers puts into h those that came behind the body: all that were announced, or,
// if it was others, under net/http's prefix for those that were not.
func trailers(h, came http.Header, announced int) {
	prefix := http.TrailerPrefix
	if len(came) == announced {
		prefix = ""
	}
	for name, values := range came {
		h[prefix+name] = values
	}
}

// An answerBody is the body of an answer. It notes when the upstream breaks it
// off: the client has the status by then, and nobody else would tell.
type answerBody struct {
	io.ReadCloser
	client   context.Context // ends when the client leaves, which breaks answers off as well
	exchange *exchange
}

// Read implements io.Reader.
func (b *answerBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF && b.client.Err() == nil {
		b.exchange.err = fmt.Errorf("%w: %w", errBrokenOff, err)
	}
	return n, err
}
