package gateway

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"
)

// The values of log.access.
const (
	accessOff    = "off"
	accessErrors = "errors"
	accessAll    = "all"
)

// What a client writes may take no more than this of a line, in bytes.
const (
	longestMethod = 16
	longestHost   = 255
	longestPath   = 1024
	longestAgent  = 200
	longestError  = 300
	longestID     = 64
)

// accessLog says which requests are told at info, a part of the settings.
type accessLog struct {
	which  string
	sample uint64 // of those that went well, one in so many is told
}

// level is that of the line about a request, and what to say beside it.
func (p *proxy) level(a accessLog, status int) (level slog.Level, also []any) {
	switch {
	case a.which == accessAll && (status < 200 || status >= 400 || p.requests.Add(1)%max(a.sample, 1) == 0):
		return slog.LevelInfo, nil
	case a.which == accessErrors && status >= 500:
		if also, ok := p.failures.allow(); ok {
			return slog.LevelInfo, also
		}
	}
	return slog.LevelDebug, nil
}

// logRequest writes the line about one request.
func (p *proxy) logRequest(x *exchange, rec *recorder, r *http.Request, status int, took time.Duration) {
	level, also := p.level(x.accessLog, status)
	if !p.logger.Enabled(context.Background(), level) {
		return
	}
	args := []any{
		"remote", x.client, "method", clip(r.Method, longestMethod), "host", clip(r.Host, longestHost),
		"path", clip(redactPath(r.URL), longestPath), "proto", r.Proto,
		"status", rec.status, "received", x.received.Load(), "bytes", rec.bytes, "duration", took, "id", x.id,
	}
	if id := rec.Header().Get(requestIDHeader); id != "" && id != x.id {
		args = append(args, "request", clip(id, longestID)) // what Mattermost calls it
	}
	if x.node != nil {
		args = append(args, "upstream", x.node.name)
	}
	if agent := r.UserAgent(); agent != "" {
		args = append(args, "agent", clip(agent, longestAgent))
	}
	if x.err != nil {
		args = append(args, "err", clip(x.err.Error(), longestError))
	}
	p.logger.Log(context.Background(), level, "http request", append(args, also...)...)
}

// A visit is what is told of a WebSocket when it ends.
type visit struct {
	id     string // of the request that it was
	client netip.Addr
	began  time.Time
	level  slog.Level
}

func newVisit(x *exchange) visit {
	v := visit{id: x.id, client: x.client, began: time.Now(), level: slog.LevelDebug}
	if x.accessLog.which == accessAll {
		v.level = slog.LevelInfo
	}
	return v
}

// tell writes the line about a WebSocket that has ended.
func (v visit) tell(logger *slog.Logger, reason, upstream string) {
	logger.Log(context.Background(), v.level, "websocket closed",
		"remote", v.client, "reason", reason, "duration", time.Since(v.began), "id", v.id, "upstream", upstream)
}

func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

// requestIDHeader carries the id of a request: ours to Mattermost, and to the
// client Mattermost's own, or ours if it has given none.
const requestIDHeader = "X-Request-Id"

// requestID is the id of r: the one that a trusted proxy gave it, or a new one.
// What other clients write is not believed: they could make two requests look
// like one.
func requestID(r *http.Request, trusted []netip.Prefix) string {
	if len(trusted) > 0 {
		peer, err := netip.ParseAddrPort(r.RemoteAddr)
		id := r.Header.Get(requestIDHeader)
		if err == nil && contains(trusted, peer.Addr().Unmap().WithZone("")) && isRequestID(id) {
			return id
		}
	}
	return newRequestID()
}

func isRequestID(s string) bool {
	return s != "" && len(s) <= longestID && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.'
	})
}

// A countedBody is the body of a request.
type countedBody struct {
	io.ReadCloser
	bytes *atomic.Int64 // read so far
}

// Read implements io.Reader.
func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.bytes.Add(int64(n))
	return n, err
}
