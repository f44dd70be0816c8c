package gateway

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"strings"
)

// refused records a WebSocket handshake that Mattermost declined: 400 and 403
// are what a wrong SiteURL or AllowCorsFrom looks like from here.
func (p *proxy) refused(resp *http.Response) {
	p.metrics.wsRefused.WithLabelValues(class(resp.StatusCode)).Inc()
	reason := refusal(resp)
	p.refusals.log(p.logger, slog.LevelInfo, "websocket handshake refused",
		"status", resp.StatusCode, "path", redactPath(resp.Request.URL),
		"origin", resp.Request.Header.Get("Origin"), "request", resp.Header.Get("X-Request-Id"), "reason", reason)
}

// maxRefusal is how much of the body of a refusal is looked at, and reasonLength
// how much of it is logged, in bytes.
const (
	maxRefusal   = 2 << 10
	reasonLength = 200
)

// refusal is what Mattermost says of why it declined: id and message of its error
// object, or the first line of a text. The body is as it was afterwards.
func refusal(resp *http.Response) string {
	if resp.ContentLength <= 0 || resp.ContentLength > maxRefusal || resp.Header.Get("Content-Encoding") != "" {
		return "" // nothing we would wait for
	}
	body, err := io.ReadAll(resp.Body)
	rest := resp.Body
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(body), rest), rest} // rest: for the error, if there was one
	if err != nil {
		return ""
	}
	var said struct{ ID, Message string }
	text := string(body)
	if json.Unmarshal(body, &said) == nil && said.ID != "" {
		text = said.ID + ": " + said.Message
	}
	text, _, _ = strings.Cut(strings.TrimSpace(text), "\n")
	return text[:min(len(text), reasonLength)]
}
