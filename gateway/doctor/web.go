package doctor

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/coder/websocket"
	"golang.org/x/net/http2"
)

// checkH2 looks whether HTTP/2 is offered.
func checkH2(ctx context.Context, t *Target) result {
	_, h2, err := settings(ctx, t)
	switch {
	case !h2 && err == nil:
		return warned("HTTP/2 is not offered: pages load slower").todo("something stands before Sallyport and ends TLS: switch HTTP/2 on there")
	case !h2:
		return unasked(err, t.HTTPSAddress, "tls.certificate")
	case err != nil:
		return failed("HTTP/2 is offered but not spoken: %v", reason(err)).todo("something stands before Sallyport: look into its log")
	}
	return passed("HTTP/2 is spoken")
}

// checkExtendedConnect looks whether the server invites WebSockets over HTTP/2
// (RFC 8441). Browsers take the invitation, Mattermost does not understand it.
func checkExtendedConnect(ctx context.Context, t *Target) result {
	all, h2, err := settings(ctx, t)
	switch {
	case !h2 && err == nil:
		return skipped("there is no HTTP/2").todo("see http.h2")
	case !h2:
		return unasked(err, t.HTTPSAddress, "tls.certificate")
	case err != nil:
		return skipped("HTTP/2 is not spoken").todo("see http.h2")
	case all[http2.SettingEnableConnectProtocol] != 0:
		return failed("the server offers WebSockets over HTTP/2, which Mattermost does not speak").
			todo("something stands before Sallyport: switch extended CONNECT (RFC 8441) off there")
	}
	return passed("WebSockets stay with HTTP/1.1")
}

// settings are what the server announces at the start of HTTP/2. h2 is false if
// it does not offer that.
func settings(ctx context.Context, t *Target) (all map[http2.SettingID]uint32, h2 bool, err error) {
	conn, err := t.dialTLS(ctx, func(c *tls.Config) { c.NextProtos = []string{"h2", "http/1.1"} })
	if err != nil {
		return nil, false, err
	}
	defer conn.Close()
	if conn.ConnectionState().NegotiatedProtocol != "h2" {
		return nil, false, nil
	}
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		return nil, true, err
	}
	framer := http2.NewFramer(conn, conn)
	if err := framer.WriteSettings(); err != nil {
		return nil, true, err
	}
	frame, err := framer.ReadFrame() // the first is the settings (RFC 9113 section 3.4)
	if err != nil {
		return nil, true, err
	}
	announced, ok := frame.(*http2.SettingsFrame)
	if !ok {
		return nil, true, errors.New("the first frame has no settings")
	}
	all = map[http2.SettingID]uint32{}
	return all, true, announced.ForeachSetting(func(s http2.Setting) error {
		all[s.ID] = s.Val
		return nil
	})
}

// checkRedirect follows a user who types the name without https.
func checkRedirect(ctx context.Context, t *Target) result {
	if t.HTTPAddress == "" {
		return skipped("listen.http is off").todo("users who type the name without https:// get nothing; listen.http: \":80\" sends them on")
	}
	c, done := t.public(t.HTTPAddress, true)
	defer done()
	resp, _, err := get(ctx, c, "http://"+strings.TrimPrefix(t.origin(), "https://")+"/doctor?x=1")
	if err != nil {
		return unreachable(err, t.HTTPAddress, "listen.http")
	}
	want, got := t.origin()+"/doctor?x=1", resp.Header.Get("Location")
	if resp.StatusCode/100 != 3 {
		return failed("%s answers %s in place of a redirect", t.HTTPAddress, resp.Status).todo("something else listens on listen.http: stop it")
	}
	if got != want {
		return failed("%s sends to %q, not to %q", t.HTTPAddress, got, want).todo("correct domain and listen.https, or stop what else listens on listen.http")
	}
	return passed("http:// leads to %s", t.origin())
}

// checkProxy asks Mattermost through the public name.
func checkProxy(ctx context.Context, t *Target) result {
	c, done := t.public(t.HTTPSAddress, false)
	defer done()
	resp, body, err := get(ctx, c, t.origin()+t.PingPath)
	if err != nil {
		return unreachable(err, t.HTTPSAddress, "listen.https")
	}
	if resp.StatusCode == http.StatusBadGateway || resp.StatusCode == http.StatusGatewayTimeout {
		return failed("%s answers %s: Sallyport does not reach Mattermost", t.origin(), resp.Status).todo("see upstream.ping; the running process may have another upstream than the file: reload it")
	}
	if maintained(resp, body) {
		return failed("every node of Mattermost is drained: users are told that it is under maintenance").todo("sallyport upstream undrain URL puts one back")
	}
	r := t.judgePing(resp, body, t.origin())
	if r.status == Pass {
		r.text += " over " + resp.Proto
	}
	return r
}

// checkWebSocket does the handshake that the web application does.
func checkWebSocket(ctx context.Context, t *Target) result {
	c, done := t.public(t.HTTPSAddress, true)
	defer done()
	u := url.URL{Scheme: "wss", Host: strings.TrimPrefix(t.origin(), "https://"), Path: t.WebSocketPath}
	conn, resp, err := websocket.Dial(ctx, u.String(), &websocket.DialOptions{
		HTTPClient: c, HTTPHeader: http.Header{"Origin": {t.origin()}},
	})
	if err == nil {
		_ = conn.CloseNow() // Mattermost would wait for a login first
		return passed("the WebSocket opens with Origin %s", t.origin())
	}
	if resp == nil {
		return unasked(err, t.HTTPSAddress, "proxy.ping")
	}
	if resp.Header.Get(rejectReason) != "" {
		return shutOut(resp)
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxBody)) // what Dial has kept of it
	if maintained(resp, body) {
		return skipped("every node of Mattermost is drained").todo("see proxy.ping")
	}
	switch resp.StatusCode {
	case http.StatusForbidden, http.StatusBadRequest:
		return failed("Mattermost refuses the WebSocket with %s: it does not know the Origin %s", resp.Status, t.origin()).
			todo("set ServiceSettings.SiteURL in Mattermost to exactly %s", t.origin())
	case http.StatusBadGateway, http.StatusGatewayTimeout:
		return skipped("Sallyport does not reach Mattermost").todo("see upstream.ping")
	}
	return failed("the WebSocket is answered with %s", resp.Status).
		todo("it must be Mattermost that answers %s at upstream, and nothing before Sallyport may take away the Upgrade header", u.Path)
}

// maintained reports whether Sallyport says that Mattermost was taken out of service.
func maintained(resp *http.Response, body []byte) bool {
	return resp.StatusCode == http.StatusServiceUnavailable && bytes.Contains(body, []byte(`"sallyport.upstream.maintenance"`))
}
