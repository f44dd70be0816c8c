package gateway

import (
	"fmt"
	"path"
	"strings"
)

// maxRate bounds the limits of requests; more than that is no limit.
const maxRate = 1_000_000

func (c Config) validateLimits(ps *problems) {
	l := c.Limits
	if l.Connections < 0 {
		ps.add("limits.connections", "%d is negative: use 0 for any number", l.Connections)
	}
	for _, limit := range []struct {
		key         string
		rate, burst int
	}{{"limits.requests", l.Requests, l.RequestsBurst}, {"limits.logins", l.Logins, l.LoginsBurst}} {
		if limit.rate < 0 || limit.rate > maxRate {
			ps.add(limit.key, "%d is not between 0 and %d: use 0 for any number", limit.rate, maxRate)
		}
		if limit.rate != 0 && (limit.burst < 1 || limit.burst > maxRate) {
			ps.add(limit.key+"_burst", "%d is not between 1 and %d", limit.burst, maxRate)
		}
	}
	checkNetworks(ps, "limits.exempt", l.Exempt)
}

// checkNetworks looks at a list of networks and addresses.
func checkNetworks(ps *problems, key string, list []string) {
	for i, network := range list {
		if !isAddress(network) && !isPrefix(network) {
			ps.add(fmt.Sprintf("%s[%d]", key, i), "%q is not a network like 10.0.0.0/8 or an address", network)
		}
	}
}

// The bounds of proxy.max_header: less than a browser's cookies take would lock
// everybody out, and more than this is what net/http gives strangers by default.
const (
	leastHeader = 4 << 10
	mostHeader  = 1 << 20
)

// validateHead looks at the keys about the heads of requests and answers.
func (c Config) validateHead(ps *problems) {
	if n := c.Proxy.MaxHeader; n < leastHeader || n > mostHeader {
		ps.add("proxy.max_header", "%d is not between %d and %d", n, leastHeader, mostHeader)
	}
	if c.Proxy.MaxURL < 0 {
		ps.add("proxy.max_url", "%d is negative: use 0 for no limit but proxy.max_header", c.Proxy.MaxURL)
	}
	if r := c.Proxy.Robots; r != "" && r != noIndex {
		ps.add("proxy.robots", "%q is not noindex, or empty", r)
	}
	if fault := pathFault(c.Proxy.SitePath); c.Proxy.SitePath != "" && fault != "" {
		ps.add("proxy.site_path", "%s", fault)
	} else if c.Proxy.SitePath == "/" {
		ps.add("proxy.site_path", "use \"\" if SiteURL has no path")
	}
}

// pathFault says what is wrong with a path that requests are compared with, or
// "".
func pathFault(p string) string {
	switch {
	case !strings.HasPrefix(p, "/"):
		return fmt.Sprintf("%q does not begin with /", p)
	case strings.ContainsFunc(p, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("%?#*\\", r) }):
		return fmt.Sprintf("%q has characters other than those of a plain path: no %%, ?, #, * or space", p)
	case path.Clean(p) != p:
		return fmt.Sprintf("%q: write it as %q", p, path.Clean(p))
	}
	return ""
}
