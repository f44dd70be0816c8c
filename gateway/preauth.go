package gateway

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
)

// preauthHeader carries the secret of Mattermost's mobile and desktop apps.
const preauthHeader = "X-Mattermost-Preauth-Secret"

var errPreauth = errors.New("without the pre-authentication secret")

// A preauth is the secret that apps have to send with every request: it keeps
// strangers away even from Mattermost's login page.
type preauth struct {
	sums   [][sha256.Size]byte // of the secrets that are accepted; none: nothing is asked for
	exempt []netip.Prefix
}

func newPreauth(exempt []string) (preauth, error) {
	networks, err := parsePrefixes(exempt)
	if err != nil {
		return preauth{}, fmt.Errorf("access.preauth_exempt: %w", err)
	}
	return preauth{exempt: networks}, nil
}

// accept sets the secrets that are good.
func (a *preauth) accept(secrets [][]byte) {
	for _, s := range secrets {
		a.sums = append(a.sums, sha256.Sum256(s))
	}
}

// knows reports whether the one value of a header is the secret. How long that
// takes tells nothing of it.
func (a *preauth) knows(values []string) bool {
	if len(values) != 1 {
		return false
	}
	sum, good := sha256.Sum256([]byte(values[0])), 0
	for i := range a.sums {
		good |= subtle.ConstantTimeCompare(sum[:], a.sums[i][:])
	}
	return good == 1
}

// preauthorized reports whether r may pass, and takes the secret off it: nobody
// behind us, plugins among them, has any use for it.
func (g *guards) preauthorized(r *http.Request, client netip.Addr) bool {
	if len(g.preauth.sums) == 0 {
		return true
	}
	given := r.Header[preauthHeader]
	delete(r.Header, preauthHeader)
	return g.preauth.knows(given) || client.IsValid() && contains(g.preauth.exempt, client) || isPlain(r.URL) && withoutPreauth(g.seen(r))
}

// withoutPreauth reports whether p, as seen has it, is where the apps, or the
// browsers that they send their users to, cannot send the secret: the
// acknowledgement of a notification, and logging in by SAML, OAuth or OpenID
// (Mattermost's documentation, "Pre-authentication secrets").
func withoutPreauth(p string) bool {
	switch p {
	case "/api/v4/notifications/ack", "/api/v4/config/client", "/login/desktop", "/login/sso/saml":
		return true
	}
	if within(p, "/static") {
		return true
	}
	parts := strings.Split(strings.TrimPrefix(p, "/"), "/")
	switch {
	case len(parts) == 3 && parts[0] == "oauth" && isService(parts[1]):
		return parts[2] == "complete" || parts[2] == "login" || parts[2] == "mobile_login" || parts[2] == "signup"
	case len(parts) == 3 && (parts[0] == "signup" || parts[0] == "login") && isService(parts[1]):
		return parts[2] == "complete"
	case len(parts) == 5 && strings.HasPrefix(p, "/api/v3/oauth/") && isService(parts[3]):
		return parts[4] == "complete"
	}
	return false
}

// isService reports whether s can be the name of an OAuth service in a path.
func isService(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') })
}

// askForSecret answers an app that did not send it, in the form by which it
// learns that it should.
func (p *proxy) askForSecret(w http.ResponseWriter, r *http.Request, x *exchange) {
	p.metrics.denied.WithLabelValues(deniedByPreauth).Inc()
	w.Header().Set(rejectReason, "pre-auth")
	p.turnAway(w, r, x, http.StatusForbidden, errPreauth)
}
