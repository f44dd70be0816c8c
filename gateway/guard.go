package gateway

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"
)

// Why a request got no further than to us: what the access log says of it.
var (
	errLongURL = errors.New("URL longer than proxy.max_url")
	errBigHead = errors.New("header longer than proxy.max_header")
	errTooMany = errors.New("more than limits allow this address")
)

// noIndex is the value of proxy.robots that asks search engines to list nothing.
const noIndex = "noindex"

// A gate is what guarding remembers from request to request. It outlives
// reloads.
type gate struct {
	limiter   *limiter
	limitings *rarely        // log line "client limited"
	denials   *rarely        // log line "access denied"
	requests  *atomic.Uint64 // that went well, for log.sample
}

func newGate() gate {
	return gate{limiter: newLimiter(), limitings: newRarely(), denials: newRarely(), requests: new(atomic.Uint64)}
}

// guards are what requests must pass, a part of the settings.
type guards struct {
	maxHeader int    // bytes
	maxURL    int    // bytes; 0 = no limit of its own
	robots    string // X-Robots-Tag; "" = none
	sitePath  string // of SiteURL; "" = none
	limits    allowances
	rules     []rule // longest path first
	preauth   preauth
}

func newGuards(c Config) (guards, error) {
	limits, err := newAllowances(c.Limits)
	if err != nil {
		return guards{}, fmt.Errorf("limits.exempt: %w", err)
	}
	rules, err := newRules(c.Access.Rules)
	if err != nil {
		return guards{}, err
	}
	preauth, err := newPreauth(c.Access.PreauthExempt)
	if err != nil {
		return guards{}, err
	}
	return guards{
		maxHeader: c.Proxy.MaxHeader, maxURL: c.Proxy.MaxURL, robots: c.Proxy.Robots, sitePath: c.Proxy.SitePath, limits: limits,
		rules: rules, preauth: preauth,
	}, nil
}

// guarded answers r if it must not get to Mattermost, and reports whether it
// did. It is where all that an administrator may limit or forbid is looked at,
// the cheapest first.
func (p *proxy) guarded(w http.ResponseWriter, r *http.Request, x *exchange) bool {
	if x.maxURL > 0 && len(r.RequestURI) > x.maxURL {
		p.metrics.limited.WithLabelValues(limitURL).Inc()
		p.turnAway(w, r, x, http.StatusRequestURITooLong, errLongURL)
		return true
	}
	if headSize(r) > x.maxHeader {
		p.metrics.limited.WithLabelValues(limitHeader).Inc()
		p.turnAway(w, r, x, http.StatusRequestHeaderFieldsTooLarge, errBigHead)
		return true
	}
	if by := x.denied(r, x.client); by != "" {
		p.forbid(w, r, x, by)
		return true
	}
	if !x.preauthorized(r, x.client) {
		p.askForSecret(w, r, x)
		return true
	}
	if which, wait := p.overLimit(r, x); wait > 0 {
		p.tooMany(w, r, x, which, wait)
		return true
	}
	return false
}

// headSize is how many bytes the header of r has, or would have in HTTP/1.
func headSize(r *http.Request) int {
	n := len(r.Method) + len(r.RequestURI) + len(r.Proto) + len(r.Host)
	for name, values := range r.Header {
		for _, v := range values {
			n += len(name) + len(v) + len(": \r\n")
		}
	}
	return n
}

// tooMany answers a client that has used up its allowance of one kind.
func (p *proxy) tooMany(w http.ResponseWriter, r *http.Request, x *exchange, which string, wait time.Duration) {
	p.metrics.limited.WithLabelValues(which).Inc()
	p.limitings.log(p.logger, slog.LevelWarn, "client limited", "remote", x.client, "limit", "limits."+which, "path", redactPath(r.URL))
	w.Header().Set("Retry-After", strconv.FormatInt(int64((wait+time.Second-1)/time.Second), 10))
	p.turnAway(w, r, x, http.StatusTooManyRequests, errTooMany)
}

// turnAway answers in Mattermost's place a request that it will not see.
func (p *proxy) turnAway(w http.ResponseWriter, r *http.Request, x *exchange, status int, why error) {
	x.err = why
	if x.hsts != "" {
		w.Header().Set("Strict-Transport-Security", x.hsts)
	}
	if r.ProtoMajor == 1 && r.ContentLength != 0 {
		w.Header().Set("Connection", "close") // the body is not worth reading
	}
	f := failures[status]
	if status == http.StatusForbidden {
		f = shutOut
	}
	writePage(w, r, f, status, x.id)
}
