package gateway

import (
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
)

const (
	testPreauth    = "the-pre-authentication-secret"
	testPreauthOld = "the-one-before-that-one"
)

// preauthGateway asks for the secrets.
func preauthGateway(t *testing.T, edit func(*Config)) *testGateway {
	return startGatewayWith(t, func(c *Config) {
		c.Access.PreauthSecretFile, c.Access.PreviousPreauthSecretFile = "preauth", "preauth.old"
		if edit != nil {
			edit(c)
		}
	}, func(o *Options) {
		read := o.ReadFile
		o.ReadFile = func(name string) ([]byte, error) {
			switch name {
			case "preauth":
				return []byte(testPreauth + "\n"), nil
			case "preauth.old":
				return []byte(testPreauthOld), nil
			case "preauth.short":
				return []byte("short"), nil
			case "preauth.odd":
				return []byte("a secret with spaces in it"), nil
			case "preauth.none":
				return nil, os.ErrNotExist
			}
			return read(name)
		}
	})
}

func TestPreauth(t *testing.T) {
	g := preauthGateway(t, nil)
	for name, c := range map[string]*http.Client{"h1": client(nil, "http/1.1"), "h2": client(nil, "h2")} {
		status := func(want int, path string, headers ...string) (*http.Response, string) {
			t.Helper()
			resp, body := ask(t, c, request(t, http.MethodGet, "https://"+g.Addrs().HTTPS+path, "", headers...))
			if resp.StatusCode != want {
				t.Errorf("%s %s %v: status %d, want %d", name, path, headers, resp.StatusCode, want)
			}
			return resp, body
		}
		_, body := status(200, "/plugins/mirror/", preauthHeader, testPreauth)
		if strings.Contains(body, "Preauth") {
			t.Errorf("%s: Mattermost got the secret: %s", name, body)
		}
		status(200, "/", preauthHeader, testPreauthOld)
		status(200, "/api/v4/system/ping", strings.ToLower(preauthHeader), testPreauth)
		for _, wrong := range [][]string{
			nil, {preauthHeader, ""}, {preauthHeader, testPreauth + "x"}, {preauthHeader, testPreauth[1:]},
			{preauthHeader, testPreauth, preauthHeader, testPreauth}, {"X_Mattermost_Preauth_Secret", testPreauth},
			{"X-Forwarded-For", "127.0.0.1"}, {"Cookie", preauthHeader + "=" + testPreauth},
		} {
			resp, _ := status(403, "/api/v4/system/ping", wrong...)
			if resp.Header.Get("X-Reject-Reason") != "pre-auth" || resp.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("%s: %v", name, resp.Header)
			}
		}
		status(200, "/api/v4/config/client")
		c.CloseIdleConnections()
	}
	if n := metric(g.metrics.denied.WithLabelValues("preauth")); n != 16 {
		t.Errorf("counted %v", n)
	}
	for _, secret := range []string{testPreauth, testPreauthOld} {
		if lines := g.log.with(secret); len(lines) > 0 {
			t.Errorf("the secret is in the log: %v", lines)
		}
	}
}

// A reload rotates the secret, and one that is no good changes nothing.
func TestPreauthReload(t *testing.T) {
	g := preauthGateway(t, nil)
	c := client(nil, "h2")
	defer c.CloseIdleConnections()
	works := func(secret string) bool {
		resp, _ := ask(t, c, request(t, http.MethodGet, "https://"+g.Addrs().HTTPS+"/", "", preauthHeader, secret))
		return resp.StatusCode == http.StatusOK
	}
	for _, bad := range []string{"preauth.short", "preauth.odd", "preauth.none"} {
		next := g.config()
		next.Access.PreauthSecretFile = bad
		if _, err := g.Reload(next); err == nil || strings.Contains(err.Error(), "a secret with") {
			t.Errorf("%s: %v", bad, err)
		}
	}
	if !works(testPreauth) || !works(testPreauthOld) {
		t.Error("a bad reload changed something")
	}
	next := g.config()
	next.Access.PreviousPreauthSecretFile = ""
	if _, err := g.Reload(next); err != nil {
		t.Fatal(err)
	}
	if !works(testPreauth) || works(testPreauthOld) {
		t.Error("the old secret still works")
	}
	next.Access.PreauthExempt = []string{"127.0.0.0/8"}
	if _, err := g.Reload(next); err != nil {
		t.Fatal(err)
	}
	if !works("") {
		t.Error("an exempt network has to send the secret")
	}
	next.Access = Access{}
	if _, err := g.Reload(next); err != nil || !works("") {
		t.Errorf("it cannot be switched off: %v", err)
	}
}

func TestWhereNoSecretIsAskedFor(t *testing.T) {
	g := guards{sitePath: "/chat"}
	g.preauth.accept([][]byte{[]byte(testPreauth)})
	for target, want := range map[string]bool{
		"/api/v4/notifications/ack":        true,
		"/api/v4/config/client?format=old": true,
		"/static/main.js":                  true,
		"/static/a/b":                      true,
		"/login/desktop":                   true,
		"/login/sso/saml?a=b":              true,
		"/oauth/gitlab/complete":           true,
		"/oauth/openid/login":              true,
		"/oauth/google/mobile_login":       true,
		"/oauth/office365/signup":          true,
		"/api/v3/oauth/gitlab/complete":    true,
		"/signup/gitlab/complete":          true,
		"/login/gitlab/complete":           true,
		"/chat/static/main.js":             true,
		"/chat/login/desktop":              true,
		"/CHAT/oauth/GitLab/complete":      true,

		"/":                                      false,
		"/login":                                 false,
		"/login/desktop/x":                       false,
		"/api/v4/config":                         false,
		"/api/v4/config/client/x":                false,
		"/api/v4/users/login":                    false,
		"/api/v4/notifications":                  false,
		"/statics":                               false,
		"/STATIC/main.js":                        false,
		"/static/../api/v4/users/login":          false,
		"/static/%2e%2e/api/v4/users":            false,
		"/static/%252e%252e/api/v4/users":        false,
		"/static%2f..%2fapi/v4/users":            false,
		"/static/%25252525252525252e./api":       false,
		"/oauth/gitlab/authorize":                false,
		"/oauth/git-lab/complete":                false,
		"/oauth//complete":                       false,
		"/oauth/authorize":                       false,
		"/oauth/access_token":                    false,
		"/oauth/a/b/complete":                    false,
		"/api/v4/oauth/gitlab/complete":          false,
		"/plugins/x/static/y":                    false,
		"/other/static/main.js":                  false,
		"/chat/chat/static/main.js":              false,
		"/chat/../api/v4/config":                 false,
		"/api/v4/users/login?x=/static/main.js":  false,
		"/api/v4/notifications/ack/../../../api": false,
	} {
		r := httptest.NewRequest(http.MethodGet, target, nil)
		if got := g.preauthorized(r, clientAddr(r, nil)); got != want {
			t.Errorf("%s: %v", target, got)
		}
	}
}

func TestRobots(t *testing.T) {
	for _, robots := range []string{"", noIndex} {
		rig := startProxy(t, func(c *Config) { c.Proxy.Robots = robots })
		rig.both(func(t *testing.T, c *http.Client) {
			resp, _ := ask(t, c, request(t, http.MethodGet, rig.url("/"), ""))
			if got := strings.Join(resp.Header.Values("X-Robots-Tag"), ","); got != robots {
				t.Errorf("X-Robots-Tag %q, want %q", got, robots)
			}
		})
	}
}
