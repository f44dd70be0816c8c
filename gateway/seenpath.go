package gateway

import (
	"net/http"
	"net/url"
	"path"
	"strings"
)

// seen is the path of r as Mattermost's router will see it: decoded, without dot
// segments and double slashes, and without the path of SiteURL.
func (g *guards) seen(r *http.Request) string {
	return withoutSite(cleanPath(r.URL.Path), g.sitePath)
}

// isPlain reports whether the path of u is written so that every server takes it
// for the same.
func isPlain(u *url.URL) bool {
	return u.RawPath == "" && !strings.Contains(u.Path, "%") && cleanPath(u.Path) == "/"+strings.Trim(u.Path, "/")
}

// cleanPath is p without dot segments, double slashes and a slash at the end.
func cleanPath(p string) string {
	if isClean(p) {
		return p
	}
	return path.Clean("/" + p)
}

// isClean reports whether p is certainly its own cleanPath.
func isClean(p string) bool {
	if p == "" || p[0] != '/' || len(p) > 1 && p[len(p)-1] == '/' {
		return false
	}
	for i := 1; i < len(p); i++ {
		if p[i-1] == '/' && (p[i] == '/' || p[i] == '.') {
			return false
		}
	}
	return true
}

// withoutSite takes the path of SiteURL off p, if it is there in any case.
func withoutSite(p, site string) string {
	if site == "" || len(p) < len(site) || !strings.EqualFold(p[:len(site)], site) || !within(p, p[:len(site)]) {
		return p
	}
	if len(p) == len(site) {
		return "/"
	}
	return p[len(site):]
}

// within reports whether p is prefix or below it; both are clean.
func within(p, prefix string) bool {
	return strings.HasPrefix(p, prefix) && (len(p) == len(prefix) || prefix == "/" || p[len(prefix)] == '/')
}
