package gateway

import (
	"cmp"
	"io"
	"maps"
	"net/http"
	"net/netip"
	"net/textproto"
	"slices"
	"strings"
)

// outgoing is r as Mattermost gets it.
func (x *exchange) outgoing(r *http.Request) *http.Request {
	out := r.WithContext(r.Context())
	out.Close = false                   // a matter between the client and us
	out.Host = cmp.Or(r.Host, x.domain) // with the port: Mattermost compares it to SiteURL and Origin
	out.Header = x.outgoingHeader(r)
	out.Header["X-Forwarded-Host"] = []string{out.Host}
	if r.ContentLength == 0 {
		out.Body, out.Trailer = nil, nil
	}
	if len(out.Trailer) > 0 { // the map is filled while the body is read
		dropUntrusted(out.Trailer) // those announced
		out.Body = &trailed{out.Body, out.Trailer}
	}
	return out
}

// outgoingHeader is the header of r as Mattermost gets it. It shares its values.
func (x *exchange) outgoingHeader(r *http.Request) http.Header {
	h := make(http.Header, len(r.Header)+8)
	for name, values := range r.Header {
		if !hopByHop(name) && !untrusted(name) {
			h[name] = values
		}
	}
	dropNamed(h, r.Header["Connection"])
	if hasToken(r.Header["Te"], "trailers") {
		h["Te"] = []string{"trailers"}
	}
	if x.upgrade {
		h["Connection"], h["Upgrade"] = []string{"Upgrade"}, []string{"websocket"}
	}
	if _, ok := h["User-Agent"]; !ok {
		h["User-Agent"] = nil // else net/http writes its own
	}
	introduce(h, x.certificate)
	own := []string{"https", x.id, ""}
	// A constant, not r.TLS: this port speaks nothing but TLS, and r.TLS is nil
	// for connections that net/http did not recognise as TLS itself.
	h["X-Forwarded-Proto"] = own[0:1:1]
	h[requestIDHeader] = own[1:2:2]
	// Mattermost believes the leftmost address of X-Forwarded-For, so nothing a
	// client wrote may stay in it.
	if x.client.IsValid() {
		own[2] = x.client.String()
		h["X-Forwarded-For"], h["X-Real-Ip"] = own[2:], own[2:]
	}
	return h
}

// hopByHop reports whether a header is between two neighbours only (RFC 9110,
// section 7.6.1, with those of RFC 2616 that are still written).
func hopByHop(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade":
		return true
	}
	return false
}

// copyEndToEnd puts into h what of an answer's header is for the client.
func copyEndToEnd(h, of http.Header) {
	for name, values := range of {
		if !hopByHop(name) {
			h[name] = values
		}
	}
	dropNamed(h, of["Connection"])
}

// dropNamed removes the headers that Connection names, which makes them
// hop-by-hop too.
func dropNamed(h http.Header, connection []string) {
	for _, list := range connection {
		for name := range strings.SplitSeq(list, ",") {
			h.Del(textproto.TrimString(name))
		}
	}
}

// A trailed body has trailers, which come into the map when it ends, also some
// that were not announced.
type trailed struct {
	io.ReadCloser
	trailer http.Header
}

// Read implements io.Reader.
func (t *trailed) Read(p []byte) (int, error) {
	n, err := t.ReadCloser.Read(p)
	if err == io.EOF {
		dropUntrusted(t.trailer)
	}
	return n, err
}

// untrusted reports whether a header is one by which a proxy speaks to an
// application, which a client could write as well. Names with an underscore are,
// too: an application behind CGI-like rules reads X_Real_IP as X-Real-IP.
func untrusted(name string) bool {
	return name == "Forwarded" || name == "X-Real-Ip" || strings.Contains(name, "_") ||
		strings.HasPrefix(name, "X-Forwarded-") || strings.HasPrefix(name, "X-Ssl-Client-")
}

// dropUntrusted drops them from a trailer, and names that are none: whoever announces
// a trailer can write anything.
func dropUntrusted(h http.Header) {
	maps.DeleteFunc(h, func(name string, _ []string) bool { return untrusted(name) || !isToken(name) })
}

// clientAddr is who sent r: the TCP peer, or, if the peer is a trusted proxy,
// the rightmost address of X-Forwarded-For that is not one. What stands to the
// left of that was written by somebody nobody vouches for. The zero Addr means
// that the peer has no IP address.
func clientAddr(r *http.Request, trusted []netip.Prefix) netip.Addr {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	client := peer.Addr().Unmap().WithZone("")
	if len(trusted) == 0 {
		return client
	}
	chain := strings.Split(strings.Join(r.Header["X-Forwarded-For"], ","), ",")
	for _, hop := range slices.Backward(chain) {
		if !contains(trusted, client) {
			break
		}
		addr, ok := parseHop(hop)
		if !ok {
			break // unreadable: the last address somebody vouched for stands
		}
		client = addr
	}
	return client
}

func contains(prefixes []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
}

// parseHop reads one element of X-Forwarded-For. Some proxies append the port.
func parseHop(s string) (netip.Addr, bool) {
	s = strings.TrimSpace(s)
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr().Unmap().WithZone(""), true
	}
	a, err := netip.ParseAddr(strings.Trim(s, "[]"))
	return a.Unmap().WithZone(""), err == nil
}

// parsePrefixes reads proxy.trusted_proxies: networks or single addresses.
func parsePrefixes(list []string) ([]netip.Prefix, error) {
	out := make([]netip.Prefix, 0, len(list))
	for _, s := range list {
		if a, err := netip.ParseAddr(s); err == nil {
			a = a.Unmap()
			out = append(out, netip.PrefixFrom(a, a.BitLen()))
			continue
		}
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, err
		}
		out = append(out, p.Masked())
	}
	return out, nil
}
