package gateway

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
)

// restricted keeps everybody but 192.0.2.0/24 away from the System Console and
// its API, but for what all clients need of it.
func restricted(c *Config) {
	office := []string{"192.0.2.0/24"}
	c.Access.Rules = []AccessRule{
		{Path: "/api/v4/config/client"},
		{Path: "/admin_console", Allow: office, Deny: []string{"192.0.2.66"}},
		{Path: "/api/v4/Config", Allow: office},
		{Path: "/plugins/mirror", Deny: []string{"127.0.0.9"}},
	}
	c.Proxy.SitePath = "/chat"
}

// slips are ways to write a restricted path, and some that are not.
var slips = map[string]bool{
	"/admin_console":  true,
	"/admin_console/": true,
	"/admin_console/user_management/users?a=b": true,
	"/ADMIN_console":                      true,
	"/%61dmin_console":                    true,
	"/%61%64%6d%69%6E%5Fconsole/x":        true,
	"/%2561dmin_console":                  true,
	"/%252561dmin_console":                true,
	"//admin_console":                     true,
	"/.//admin_console//x":                true,
	"/x/../admin_console":                 true,
	"/x/%2e%2e/admin_console":             true,
	"/x%2F..%2Fadmin_console":             true,
	"/x%252F%252e%252e%252Fadmin_console": true,
	"/%2Fadmin_console":                   true,
	"/admin_console%2Fx":                  true,
	"/admin_console/.":                    true,
	"/../../admin_console":                true,
	"/chat/admin_console":                 true,
	"/chat//admin_console":                true,
	"/Chat%2fadmin_console":               true,
	"/chat/x/../admin_console":            true,
	"/api/v4/config":                      true,
	"/api/v4/config/patch":                true,
	"/api/v4/config/client/../patch":      true,
	"/api/v4/config/client/%2e%2e/patch":  true,
	"/api/v4/config/client%2f..%2fpatch":  true,
	"/api/v4/config/clients":              true,
	"/api/v4/config/CLIENT":               true, // an exception is no wider than it is written
	"/api/v4/x/../config":                 true,

	"/api/v4/config/client":            false,
	"/api/v4/config/client?format=old": false,
	"/chat/api/v4/config/client":       false,
	"/api/v4/config/patch/../client":   true, // is client, but not for everybody
	"/api/v4/config/client%2f":         true,
	"/api/v4/config/client/":           false,
	"/":                                false,
	"/admin_consoles":                  false,
	"/team/admin_console":              false,
	"/x?next=/admin_console":           false,
	"/chats/admin_console":             false,
	"/plugins/mirror/":                 false,
	"/api/v4/configuration":            false,
}

func TestRestrictedPaths(t *testing.T) {
	rig := startProxy(t, restricted)
	for path, want := range slips {
		rig.both(func(t *testing.T, c *http.Client) {
			resp, body := ask(t, c, request(t, http.MethodGet, rig.url(path), ""))
			if denied := resp.StatusCode == http.StatusForbidden; denied != want {
				t.Errorf("%s: status %d", path, resp.StatusCode)
			}
			if want && (resp.Header.Get("X-Reject-Reason") != "address" || !strings.Contains(body, "restricted")) {
				t.Errorf("%s: %v %s", path, resp.Header, body)
			}
		})
	}
	if n := metric(rig.metrics.denied.WithLabelValues("path")); n == 0 {
		t.Error("nothing was counted")
	}
	if len(rig.log.with(`msg="access denied"`)) == 0 {
		t.Error("not a word in the log")
	}
}

func TestWhomRulesLetThrough(t *testing.T) {
	cfg := Default()
	restricted(&cfg)
	g, err := newGuards(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		client, path, by string
	}{
		{"192.0.2.1", "/admin_console", ""},
		{"192.0.2.66", "/admin_console", "/admin_console"}, // deny is stronger than allow
		{"192.0.2.66", "/api/v4/config", ""},
		{"192.0.3.1", "/admin_console", "/admin_console"},
		{"2001:db8::1", "/admin_console", "/admin_console"},
		{"192.0.3.1", "/plugins/mirror", ""}, // no allow: all others
		{"127.0.0.9", "/plugins/mirror/a", "/plugins/mirror"},
		{"127.0.0.9", "/plugins", ""},
	} {
		r := httptest.NewRequest(http.MethodGet, c.path, nil)
		if by := g.denied(r, netip.MustParseAddr(c.client)); by != c.by {
			t.Errorf("%s asks for %s: denied by %q, want %q", c.client, c.path, by, c.by)
		}
	}
	if g.denied(httptest.NewRequest(http.MethodGet, "/admin_console", nil), netip.Addr{}) == "" {
		t.Error("somebody without an address is let through")
	}
}

// A rule for everything, with exceptions.
func TestRuleForAll(t *testing.T) {
	cfg := Default()
	cfg.Access.Rules = []AccessRule{{Path: "/", Allow: []string{"192.0.2.0/24"}}, {Path: "/hooks"}}
	g, err := newGuards(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for target, want := range map[string]string{"/": "/", "/x": "/", "/hooks": "", "/hooks/abc": "", "/hooks/../x": "/", "*": "/"} {
		r := httptest.NewRequest(http.MethodOptions, target, nil)
		if by := g.denied(r, netip.MustParseAddr("198.51.100.1")); by != want {
			t.Errorf("%s: denied by %q, want %q", target, by, want)
		}
	}
}

// FuzzRestrictedPaths: whatever a client writes, what we let through leads
// Mattermost's router to nothing that is restricted. That router, which looks at
// the decoded path, is played by the one of net/http.
func FuzzRestrictedPaths(f *testing.F) {
	for path := range slips {
		f.Add(path)
	}
	cfg := Default()
	restricted(&cfg)
	g, err := newGuards(cfg)
	if err != nil {
		f.Fatal(err)
	}
	router := http.NewServeMux()
	for _, at := range []string{"", "/chat"} {
		for _, p := range []string{"/admin_console", "/admin_console/", "/api/v4/config", "/api/v4/config/", "/api/v4/config/client", "/api/v4/config/client/"} {
			router.HandleFunc(at+p, func(http.ResponseWriter, *http.Request) {})
		}
	}
	f.Fuzz(func(t *testing.T, target string) {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			return // net/http answers 400
		}
		if g.denied(&http.Request{URL: u}, netip.MustParseAddr("198.51.100.1")) != "" {
			return
		}
		arrived, err := url.ParseRequestURI(u.RequestURI())
		if err != nil {
			return
		}
		_, pattern := router.Handler(&http.Request{Method: http.MethodGet, URL: &url.URL{Path: arrived.Path}})
		if pattern != "" && !strings.Contains(pattern, "/config/client") {
			t.Errorf("%q leads to %s", target, pattern)
		}
	})
}
