package gateway

import (
	"errors"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"
)

// errBadStatus says that an upstream answered with a status that there is none of.
var errBadStatus = errors.New("upstream answered with a status below 100")

// forward has Mattermost answer r. What it does for HTTP (RFC 9110 section 7.6) is
// what httputil.ReverseProxy does too, which clones what is only read, and knows
// nothing of how an answer comes.
func (p *proxy) forward(rec *recorder, r *http.Request, x *exchange) {
	if !carriable(r) {
		p.fail(rec, r, x, errMalformed)
		return
	}
	resp, err := p.ask(rec, x.outgoing(r), x)
	if err == nil && resp.StatusCode < 100 { // net/http panics of those
		_ = resp.Body.Close()
		err = errBadStatus
	}
	if err == nil && resp.StatusCode == http.StatusSwitchingProtocols {
		if err = p.tunnels.open(x, resp); err == nil {
			return
		}
		_ = resp.Body.Close()
	}
	if err != nil {
		p.fail(rec, r, x, err)
		return
	}
	if x.upgrade {
		p.refused(resp)
	}
	if resp.StatusCode == http.StatusRequestEntityTooLarge {
		p.tooLarge(resp)
	}
	p.answer(rec, resp, x)
}

// ask sends out to Mattermost and returns what it answers, whose body the caller
// closes.
func (p *proxy) ask(rec *recorder, out *http.Request, x *exchange) (*http.Response, error) {
	h := &hints{to: rec, over: !out.ProtoAtLeast(1, 1)} // HTTP/1.0 knows none
	defer h.end()
	if x.upgrade {
		return x.askForWebSocket(out, h.pass)
	}
	resp, node, err := x.pool.send(out, h.pass)
	x.node = node
	return resp, err
}

func (x *exchange) askForWebSocket(out *http.Request, early hint) (resp *http.Response, err error) {
	out = out.WithContext(httptrace.WithClientTrace(out.Context(), &httptrace.ClientTrace{
		GotConn:        func(got httptrace.GotConnInfo) { x.conn = got.Conn },
		Got1xxResponse: early,
	}))
	x.leave, err = x.pool.webSocket(out.Context(), func(u *upstream) (err error) {
		x.node = u
		resp, err = x.pool.transport.RoundTrip(addressed(out, u, nil))
		return err
	})
	return resp, err
}

// hints are the answers before the answer (RFC 9110 section 15.2), which go on to the
// client as they come. http.Transport may have one at hand when it has given up.
type hints struct {
	to *recorder

	mu   sync.Mutex // held while one is passed on
	over bool
}

// pass is what httptrace.ClientTrace calls Got1xxResponse.
func (h *hints) pass(status int, header textproto.MIMEHeader) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.over || status == http.StatusContinue { // net/http says 100 when the body is read, which begins now: it would be said twice
		return nil
	}
	to := h.to.Header()
	copyEndToEnd(to, http.Header(header))
	h.to.WriteHeader(status)
	clear(to)
	return nil
}

func (h *hints) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.over = true
}

// carriable reports whether r can be said in HTTP/1, and says the same there. HTTP/2
// can carry more, and net/http's client would call it a fault of the upstream. Of
// "x:y:/path" the rest, "y:/path", would be sent on, and be a path that no rule saw.
func carriable(r *http.Request) bool {
	return isToken(r.Method) && r.URL.Opaque == "" && oneWord(r.URL.RequestURI()) && isHost(r.Host)
}

// oneWord reports whether s can stand in a line of HTTP/1 as one of its words.
func oneWord(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f }) < 0
}

// isToken reports whether s can be a method, or the name of a field.
func isToken(s string) bool {
	return s != "" && strings.IndexFunc(s, func(r rune) bool { return r >= 0x80 || token[r] == 0 }) < 0
}

// isHost reports whether s can be a Host, or is empty. (In HTTP/1 net/http looks.)
func isHost(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune("\"#/<>?@\\^`{|}", r) }) < 0
}
