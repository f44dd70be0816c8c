package gateway

import (
	"bufio"
	"errors"
	"net"
	"net/http"
	"strings"
	"time"
)

// A recorder notes what was answered, for metrics and the access log.
type recorder struct {
	http.ResponseWriter
	hijacked func() // called once if the connection becomes a tunnel
	status   int    // 0 until the answer has begun
	bytes    int64  // of body
}

// WriteHeader implements http.ResponseWriter.
func (r *recorder) WriteHeader(status int) {
	if status >= 200 && r.status == 0 { // 1xx come before the answer
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	n, err := r.ResponseWriter.Write(p)
	r.bytes += int64(n)
	return n, err
}

// flush sends the client what has been written.
func (r *recorder) flush() error { return http.NewResponseController(r.ResponseWriter).Flush() }

// Hijack implements http.Hijacker. It is done on a 101 answer only.
func (r *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(r.ResponseWriter).Hijack()
	if err == nil {
		r.status = http.StatusSwitchingProtocols
		r.hijacked()
	}
	return conn, rw, err
}

// Unwrap lets http.ResponseController reach what is not overridden here.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// tooLarge tells the administrator which limit it was that a user met: it is
// none of ours.
func (p *proxy) tooLarge(resp *http.Response) {
	p.metrics.tooLarge.Inc()
	r := resp.Request
	setting := "ServiceSettings.MaximumPayloadSizeBytes"
	if strings.HasPrefix(r.Header.Get("Content-Type"), "multipart/form-data") || strings.Contains(r.URL.Path, "/api/v4/files") || strings.Contains(r.URL.Path, "/uploads") {
		setting = "FileSettings.MaxFileSize"
	}
	if also, ok := p.refusals.allow(); ok {
		p.logger.Info("too large for Mattermost", append([]any{
			"setting", setting, "length", r.ContentLength, "path", redactPath(r.URL), "request", resp.Header.Get("X-Request-Id"),
		}, also...)...)
	}
}

// finish counts and logs one request. It runs also when the handler panics to
// abort the connection.
func (p *proxy) finish(x *exchange, rec *recorder, r *http.Request, began time.Time) {
	took := time.Since(began)
	x.release()
	status := rec.status
	if errors.Is(x.err, errBrokenOff) {
		p.metrics.broken.Inc()
		status = http.StatusBadGateway // whatever its first line said
	}
	p.metrics.count(r.Method, status)
	if rec.status != http.StatusSwitchingProtocols { // a tunnel left the count when it began
		p.metrics.inFlight.Dec()
		p.metrics.duration.Observe(took.Seconds())
	}
	p.logRequest(x, rec, r, status, took)
}
