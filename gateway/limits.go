package gateway

import (
	"net/http"
	"net/netip"
	"strings"
	"time"
)

// The label of sallyport_http_limited_total.
const (
	limitRequests = "requests"
	limitLogins   = "logins"
	limitURL      = "url"
	limitHeader   = "header"
)

// A limiter knows what each client has used of its allowances. It outlives
// reloads, unlike the allowances themselves.
type limiter struct {
	now              func() time.Duration // since some fixed moment
	requests, logins *buckets
}

func newLimiter() *limiter {
	began := time.Now()
	return &limiter{now: func() time.Duration { return time.Since(began) }, requests: newBuckets(), logins: newBuckets()}
}

// allowances are the limits section as requests use it.
type allowances struct {
	requests, logins allowance
	exempt           []netip.Prefix
}

func newAllowances(l Limits) (allowances, error) {
	exempt, err := parsePrefixes(l.Exempt)
	return allowances{
		requests: newAllowance(l.Requests, l.RequestsBurst),
		logins:   newAllowance(l.Logins, l.LoginsBurst),
		exempt:   exempt,
	}, err
}

// overLimit takes what r costs from the allowances of its client. If it has not
// as much, it returns which of them and how long it takes to come; nothing is
// wrong if wait is 0.
//
// A trusted proxy is a client only where it asks on its own behalf, or does not
// say for whom: then it is everybody.
func (p *proxy) overLimit(r *http.Request, x *exchange) (which string, wait time.Duration) {
	if !x.client.IsValid() || contains(x.limits.exempt, x.client) || contains(x.trusted, x.client) {
		return "", 0
	}
	client, now := limitKey(x.client), p.limiter.now()
	if wait, ok := p.limiter.requests.take(client, x.limits.requests, now); !ok {
		return limitRequests, wait
	}
	if x.limits.logins.every != 0 && isLogin(r.Method, x.seen(r)) {
		if wait, ok := p.limiter.logins.take(client, x.limits.logins, now); !ok {
			return limitLogins, wait
		}
	}
	return "", 0
}

// loginPaths are where a password, a token or a one-time code can be tried, as
// seen has them, with all below them. (What is too long to be guessed, as
// the ids of webhooks and invitations, is not among them.)
var loginPaths = []string{
	"/api/v4/users/login", // and …/type, …/switch, …/desktop_token, …/sso/code-exchange
	"/api/v4/users/mfa",
	"/api/v4/users/password", // …/reset, …/reset/send
	"/api/v4/users/email",    // …/verify, …/verify/send
	"/login/sso/saml",
	"/oauth/access_token",
	"/oauth/authorize",
}

// isLogin reports whether a request tries a secret that can be guessed: its
// bucket holds what 500 people need in the morning, and little of what somebody
// needs who guesses.
func isLogin(method, path string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return false
	}
	for _, login := range loginPaths {
		if within(path, login) {
			return true
		}
	}
	if rest, ok := strings.CutPrefix(path, "/api/v4/users/"); ok { // the present password, or a code: /api/v4/users/{id}/…
		_, what, _ := strings.Cut(rest, "/")
		return what == "password" || what == "mfa"
	}
	return false
}
