package gateway

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

func TestLogsHoldNoSecretsOfPaths(t *testing.T) {
	for raw, want := range map[string]string{
		"/":                          "/",
		"*":                          "*",
		"/a%2Fb/%C3%BC":              "/a%2Fb/%C3%BC",
		"/signup?theme=dark":         "/signup?theme=dark",
		"/api/v4/posts?id=1&page=2":  "/api/v4/posts?id=1&page=2",
		"/api/v4/users/me/hooksmith": "/api/v4/users/me/hooksmith",
		"/api/v4/websocket?connection_id=c&sequence_number=1": "/api/v4/websocket?connection_id=c&sequence_number=1",

		"/reset_password_complete?token=secret":              "/reset_password_complete?token=***",
		"/api/v4/users?access_token=secret&page=1":           "/api/v4/users?access_token=***&page=1",
		"/p?Access_Token=secret&%74oken=secret;token=secret": "/p?Access_Token=***&%74oken=***&token=***",
		"/api/v4/users?t=secret&invite_id=secret":            "/api/v4/users?t=***&invite_id=***",
		"/oauth/complete?code=secret&state=secret&x=y":       "/oauth/complete?code=***&state=***&x=y",
		"/login/sso/saml?SAMLResponse=secret":                "/login/sso/saml?SAMLResponse=***",
		"/files/f/public?h=secret":                           "/files/f/public?h=***",
		"/plugins/github/webhook?secret=secret":              "/plugins/github/webhook?secret=***",
		"/login?password=secret":                             "/login?password=***",
		"/p?%zz=secret":                                      "/p?%zz=***",
		"/p?token":                                           "/p?token=***",
		"/login/desktop?client_token=secret&server_token=secret&desktop_token=secret": "/login/desktop?client_token=***&server_token=***&desktop_token=***",
		"/login?redirect_to=%2Foauth%2Fauthorize%3Fcode%3Dsecret":                     "/login?redirect_to=***",
		"/oauth/access_token?client_secret=secret&client_id=a":                        "/oauth/access_token?client_secret=***&client_id=a",
		"/login/sso/saml?RelayState=secret&SAMLRequest=secret":                        "/login/sso/saml?RelayState=***&SAMLRequest=***",
		"/sub/plugins/jira/webhook?Secret=secret":                                     "/sub/plugins/jira/webhook?Secret=***",
		"/api/v4/teams/add?%69nvite_id=secret":                                        "/api/v4/teams/add?%69nvite_id=***",
		"/signup_user_complete/?id=secret&t=secret":                                   "/signup_user_complete/?id=***&t=***",
		"/signup_user_complete?d=secret&sbr=fa":                                       "/signup_user_complete?d=***&sbr=fa",
		"/sub/signup_user_complete/?ID=secret":                                        "/sub/signup_user_complete/?ID=***",
		"/%73ignup_user_complete/?%69d=secret":                                        "/%73ignup_user_complete/?%69d=***",

		"/hooks/secret":                     "/hooks/***",
		"/hooks/secret/":                    "/hooks/***",
		"/hooks//secret":                    "/hooks/***",
		"/hooks/commands/secret":            "/hooks/***",
		"/sub/hooks/secret/more?a=b":        "/sub/hooks/***?a=b",
		"/api/v4/hooks/incoming/secret":     "/api/v4/hooks/***",
		"/%68ooks/secret":                   "/hooks/***",
		"/sub%2Fhooks%2Fsecret":             "/sub/hooks/***",
		"/HOOKS/secret":                     "/HOOKS/***",
		"/a%20b/hooks/secret":               "/a%20b/hooks/***",
		"/api/v4/teams/invite/secret":       "/api/v4/teams/invite/***",
		"/api/v4/teams/%69nvite/secret?a=b": "/api/v4/teams/invite/***?a=b",
	} {
		u, err := url.ParseRequestURI(raw)
		if err != nil {
			t.Fatal(err)
		}
		if got := redactPath(u); got != want {
			t.Errorf("redactPath(%s) = %s, want %s", raw, got, want)
		}
	}
}

// No header and no body is ever logged, at whatever level, except the few that
// name somebody: Host, Origin, X-Request-Id.
func TestLogsHoldNoSecretsOfHeaders(t *testing.T) {
	rig := startProxy(t, nil)
	headers := []string{"Referer", "https://chat.example.com/?token=hunter2"}
	for _, name := range []string{
		"Authorization", "Cookie", "Token", "X-CSRF-Token", "X-Mattermost-Preauth-Secret", "Proxy-Authorization",
		"Sec-WebSocket-Protocol", "X-Forwarded-For",
	} {
		headers = append(headers, name, "hunter2")
	}
	rig.get("/plugins/mirror/?token=hunter2", headers...)
	rig.get("/plugins/gone/ws", append(headers, "Connection", "Upgrade", "Upgrade", "websocket")...)
	rig.get("/plugins/cookie", headers...) // answers with Set-Cookie
	ask(t, rig.h2, request(t, http.MethodPost, rig.url("/plugins/mirror/%68ooks/hunter2"), "token=hunter2", headers...))
	rig.mm.stop()
	rig.get("/hooks/hunter2?h=hunter2", headers...)
	eventually(t, "access log lines", func() bool { return len(rig.log.with("http request")) == 5 })
	if lines := rig.log.with("hunter2"); len(lines) > 0 {
		t.Errorf("secret in the log: %s", strings.Join(lines, ""))
	}
}
