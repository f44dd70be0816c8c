package gateway

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// The label of sallyport_http_denied_total.
const (
	deniedByRule    = "path"
	deniedByPreauth = "preauth"
)

var errDenied = errors.New("access rule")

// rejectReason is the header by which an app, and the doctor, learn who refused.
const rejectReason = "X-Reject-Reason"

// A rule is an AccessRule as requests use it.
type rule struct {
	path        string
	lower       string // path in lower case
	allow, deny []netip.Prefix
}

func (r *rule) admits(client netip.Addr) bool {
	return client.IsValid() && !contains(r.deny, client) && (len(r.allow) == 0 || contains(r.allow, client))
}

// newRules returns the longest paths first: the first that fits a request
// decides.
func newRules(list []AccessRule) ([]rule, error) {
	rules := make([]rule, 0, len(list))
	for i, l := range list {
		allow, err := parsePrefixes(l.Allow)
		deny, err2 := parsePrefixes(l.Deny)
		if err = errors.Join(err, err2); err != nil {
			return nil, fmt.Errorf("access.rules[%d]: %w", i, err)
		}
		rules = append(rules, rule{l.Path, strings.ToLower(l.Path), allow, deny})
	}
	slices.SortStableFunc(rules, func(a, b rule) int { return cmp.Compare(len(b.path), len(a.path)) })
	return rules, nil
}

// denied is the path of the rule that keeps a client from r, "" if none does.
func (g *guards) denied(r *http.Request, client netip.Addr) string {
	if len(g.rules) == 0 {
		return ""
	}
	if isPlain(r.URL) {
		return g.refusing(g.seen(r), client, true)
	}
	// Mattermost decodes a path once, and who knows what stands between us and it.
	for p, n := r.URL.Path, 0; n < maxReadings; n++ {
		if by := g.refusing(withoutSite(cleanPath(p), g.sitePath), client, false); by != "" {
			return by
		}
		next, err := url.PathUnescape(p)
		if err != nil || next == p {
			break
		}
		p = next
	}
	return ""
}

// maxReadings is how often denied decodes a path.
const maxReadings = 4

// refusing is denied for one reading of a path. The longest rule decides if the
// path is plain and its case is the rule's: else servers may differ on what it
// leads to, and every rule can refuse, but none can decide. (For Mattermost's
// router case counts, for its web app it does not.)
func (g *guards) refusing(p string, client netip.Addr, plain bool) string {
	lower := strings.ToLower(p)
	for i := range g.rules {
		rule := &g.rules[i]
		if !within(lower, rule.lower) {
			continue
		}
		if !rule.admits(client) {
			return rule.path
		}
		if plain && within(p, rule.path) {
			return ""
		}
	}
	return ""
}

// forbid answers a client that a rule keeps out.
func (p *proxy) forbid(w http.ResponseWriter, r *http.Request, x *exchange, by string) {
	p.metrics.denied.WithLabelValues(deniedByRule).Inc()
	p.denials.log(p.logger, slog.LevelInfo, "access denied", "remote", x.client, "rule", by, "path", redactPath(r.URL))
	w.Header().Set(rejectReason, "address")
	p.turnAway(w, r, x, http.StatusForbidden, errDenied)
}
