package gateway

import (
	"net/http"
	"path"
	"strings"
)

// seen is the path of r as Mattermost will see it, for rules: decoded, without
// dot segments and double slashes, in lower case, and without the path of
// SiteURL. Mattermost's router decodes and cleans as well; that case counts for
// it, and for its web app does not, is on the safe side here.
func (s *settings) seen(r *http.Request) string {
	return withoutSite(cleanPath(r.URL.Path), s.sitePath)
}

// cleanPath is p without dot segments, double slashes and a slash at the end,
// in lower case.
func cleanPath(p string) string {
	if isClean(p) {
		return p
	}
	return strings.ToLower(path.Clean("/" + p))
}

// isClean reports whether p is certainly its own cleanPath.
func isClean(p string) bool {
	if p == "" || p[0] != '/' || len(p) > 1 && p[len(p)-1] == '/' {
		return false
	}
	for i := range len(p) {
		switch c := p[i]; {
		case 'A' <= c && c <= 'Z', c >= 0x80:
			return false
		case i > 0 && p[i-1] == '/' && (c == '/' || c == '.'):
			return false
		}
	}
	return true
}

// withoutSite takes the path of SiteURL off p, if it is there.
func withoutSite(p, site string) string {
	if site == "" || !within(p, site) {
		return p
	}
	if p == site {
		return "/"
	}
	return p[len(site):]
}

// within reports whether p is prefix or below it; both are clean.
func within(p, prefix string) bool {
	return strings.HasPrefix(p, prefix) && (len(p) == len(prefix) || prefix == "/" || p[len(prefix)] == '/')
}
