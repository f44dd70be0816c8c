package gateway

import (
	"cmp"
	"io"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"slices"
	"strings"
)

// rewrite turns the client's request into the one that Mattermost gets. By now
// httputil has removed the hop-by-hop headers.
func (p *proxy) rewrite(pr *httputil.ProxyRequest) {
	x := exchangeOf(pr.In.Context())
	out := pr.Out
	out.Host = cmp.Or(pr.In.Host, x.domain) // with the port: Mattermost compares it to SiteURL and Origin
	out.URL.RawQuery = pr.In.URL.RawQuery   // httputil drops what it cannot parse; not ours to judge
	out.Trailer = pr.In.Trailer             // the same map: it is filled while the body is read
	if len(out.Trailer) > 0 && out.Body != nil {
		dropUntrusted(out.Trailer) // those announced
		out.Body = &trailed{out.Body, out.Trailer}
	}
	if !x.upgrade {
		out.Header.Del("Connection")
		out.Header.Del("Upgrade")
	}
	dropUntrusted(out.Header)
	introduce(out.Header, x.certificate)
	// Mattermost believes the leftmost address of X-Forwarded-For, so nothing a
	// client wrote may stay in it.
	if x.client.IsValid() {
		out.Header.Set("X-Forwarded-For", x.client.String())
		out.Header.Set("X-Real-Ip", x.client.String())
	}
	out.Header.Set("X-Forwarded-Host", out.Host)
	out.Header.Set(requestIDHeader, x.id)
	// A constant, not r.TLS: this port speaks nothing but TLS, and r.TLS is nil
	// for connections that net/http did not recognise as TLS itself.
	out.Header.Set("X-Forwarded-Proto", "https")
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

// dropUntrusted removes the headers by which a proxy speaks to an application,
// which a client could write as well. Names with an underscore go too: an
// application behind CGI-like rules reads X_Real_IP as X-Real-IP.
func dropUntrusted(h http.Header) {
	for name := range h {
		if name == "Forwarded" || name == "X-Real-Ip" || strings.Contains(name, "_") ||
			strings.HasPrefix(name, "X-Forwarded-") || strings.HasPrefix(name, "X-Ssl-Client-") {
			delete(h, name)
		}
	}
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
