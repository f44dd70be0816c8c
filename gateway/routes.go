package gateway

import (
	"net"
	"net/http"
	"strings"
)

// A door is one way in for HTTP.
type door string

const (
	doorHTTPS door = "https" // TLS on listen.https
	doorPlain door = "plain" // HTTP without TLS on the same port
	doorHTTP  door = "http"  // listen.http
)

// A route says who answers a request. Empty host: any; path is a prefix.
type route struct {
	door       door
	host, path string
	handler    http.Handler
}

// handlers are those a route may name.
type handlers struct {
	proxy    http.Handler
	redirect http.Handler                    // to the same page over HTTPS
	acme     func(http.Handler) http.Handler // answers HTTP-01 challenges, hands on the rest; nil without listen.http
}

// newRoutes is the whole of it: which door, host and path leads where.
func newRoutes(h handlers) routes {
	all := routes{
		{doorHTTPS, "", "/", h.proxy},
		{doorPlain, "", "/", h.redirect},
	}
	if h.acme != nil {
		all = append(all, route{doorHTTP, "", "/", h.acme(h.redirect)})
	}
	return all
}

type routes []route

// at returns the handler of one door: the first route that fits the request.
func (rs routes) at(d door) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, rt := range rs {
			if rt.door == d && rt.fits(r) {
				rt.handler.ServeHTTP(w, r)
				return
			}
		}
		http.NotFound(w, r)
	})
}

func (rt route) fits(r *http.Request) bool {
	if rt.host != "" && !strings.EqualFold(rt.host, hostname(r.Host)) {
		return false
	}
	return rt.path == "/" || strings.HasPrefix(r.URL.Path, rt.path) // "/" also takes "*" of OPTIONS
}

func hostname(hostport string) string {
	if host, _, err := net.SplitHostPort(hostport); err == nil {
		return host
	}
	return hostport
}

// redirect sends every request to the same path over HTTPS, always to our own
// domain: a Host header is the client's word, and following it would make us an
// open redirect. port is that of listen.https.
func redirect(domain, port string) http.Handler {
	host := domain
	if strings.Contains(host, ":") && !strings.HasPrefix(host, "[") {
		host = "[" + host + "]" // an IPv6 address
	}
	if port != "443" {
		host += ":" + port
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodConnect {
			http.Error(w, "CONNECT is not served here", http.StatusMethodNotAllowed)
			return
		}
		status := http.StatusPermanentRedirect // keeps method and body
		if r.Method == http.MethodGet || r.Method == http.MethodHead {
			status = http.StatusMovedPermanently
		}
		target := r.URL.RequestURI()
		if !strings.HasPrefix(target, "/") { // "*"
			target = "/"
		}
		w.Header().Set("Connection", "close") // nobody stays on this port
		w.Header().Set("Location", "https://"+host+target)
		w.WriteHeader(status)
	})
}
