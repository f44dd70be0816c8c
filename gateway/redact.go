package gateway

import (
	"net/url"
	"slices"
	"strings"
)

// secretKeys are the query keys whose value lets somebody in, wherever they
// stand.
var secretKeys = []string{
	"invite_id", "t", "code", "state", "samlrequest", "samlresponse", "relaystate", "h", "r", "login_code",
	"redirect_to", // may be a URL with any of them
}

// secretWords make a query key one of them wherever they stand in it:
// access_token, client_secret, desktop_token.
var secretWords = []string{"token", "secret", "passw", "csrf"}

func isSecretKey(key string) bool {
	return slices.Contains(secretKeys, key) || slices.ContainsFunc(secretWords, func(w string) bool { return strings.Contains(key, w) })
}

// signupKeys are those that do on the page of an invitation only: its id, and a
// description of the team that holds it.
var signupKeys = []string{"id", "d"}

// redactPath is the path and query of u as they may stand in a log: without
// tokens, invitations, one-time codes, public-file hashes and webhook ids.
func redactPath(u *url.URL) string {
	path := redactSegments(u)
	if u.RawQuery == "" {
		return path
	}
	pairs := strings.FieldsFunc(u.RawQuery, func(c rune) bool { return c == '&' || c == ';' })
	signup := strings.Contains(strings.ToLower(u.Path), "signup")
	for i, pair := range pairs {
		name, _, _ := strings.Cut(pair, "=")
		plain, err := url.QueryUnescape(name)
		plain = strings.ToLower(plain)
		if err != nil || isSecretKey(plain) || signup && slices.Contains(signupKeys, plain) {
			pairs[i] = name + "=***"
		}
	}
	return path + "?" + strings.Join(pairs, "&")
}

// redactSegments is the path of u without what follows /hooks/ and
// /teams/invite/. Mattermost looks at the path decoded, slashes included, and so
// do we: /%68ooks%2F is /hooks/.
func redactSegments(u *url.URL) string {
	segments := strings.Split(u.Path, "/")
	for i, s := range segments[:len(segments)-1] {
		if strings.EqualFold(s, "hooks") || strings.EqualFold(s, "invite") && strings.EqualFold(segments[max(i-1, 0)], "teams") {
			public := url.URL{Path: strings.Join(segments[:i+1], "/")}
			return public.EscapedPath() + "/***"
		}
	}
	return u.EscapedPath()
}
