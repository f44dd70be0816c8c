package gateway

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"sallyport/gateway/admin"
)

// The health of an upstream: the smaller, the sooner it is chosen.
const (
	healthy int32 = iota
	ill           // its ping is slow or bad: used only if no healthy one is there
	away          // cannot be dialled
)

const (
	strikesOut = 5                // bad answers in a row that make an upstream suspect
	suspectFor = 10 * time.Second // then it counts as ill, whatever its ping says
)

// An upstream is one Mattermost node. It outlives its pool if a reload keeps it.
type upstream struct {
	url          *url.URL
	name         string // in logs and metrics
	scheme, host string // of the URLs that it is asked for

	health  atomic.Int32
	tried   atomic.Int64           // when it was last dialled in vain, Unix nanoseconds
	reason  atomic.Pointer[string] // why it is not healthy
	strikes atomic.Int32           // bad answers since the last good one
	suspect atomic.Int64           // ill until then, Unix nanoseconds
	drained atomic.Bool            // by command: gets nothing new
	emptied atomic.Bool            // its WebSockets are being closed
	busy    atomic.Int32           // requests under way
	open    atomic.Int32           // WebSockets
	meter   atomic.Pointer[meter]  // nil until in use
}

// A dialError says that a request never left: the upstream could not be reached.
type dialError struct{ err error }

func (e *dialError) Error() string { return "dial upstream: " + e.err.Error() }
func (e *dialError) Unwrap() error { return e.err }

// A handshakeError is what came instead of TLS.
type handshakeError struct{ err error }

func (e *handshakeError) Error() string { return e.err.Error() }
func (e *handshakeError) Unwrap() error { return e.err }

func isDial(err error) bool {
	var dial *dialError
	return errors.As(err, &dial)
}

func newUpstream(raw string) (*upstream, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("upstream: %w", err)
	}
	if u.Scheme == "unix" && u.Host == "" && u.Path != "" {
		// A socket has no host: one is made of its path, such as no host has.
		return &upstream{url: u, name: "unix:" + u.Path, scheme: "http", host: fmt.Sprintf("%x.unix", u.Path)}, nil
	}
	if u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("upstream: %q is not an http:// or https:// URL", raw)
	}
	return &upstream{url: u, name: u.Host, scheme: u.Scheme, host: u.Host}, nil
}

// level is the health that counts in choosing.
func (u *upstream) level() int32 {
	h := u.health.Load()
	if until := u.suspect.Load(); h == healthy && until != 0 && time.Now().UnixNano() < until {
		return ill
	}
	return h
}

// myTurn reports whether the caller may dial u, which is away: one may in each
// retryEvery.
func (u *upstream) myTurn() bool {
	last, now := u.tried.Load(), time.Now().UnixNano()
	// Nine tenths: the one who waits 250 ms must find its turn due, whatever
	// the timer's rounding.
	return now-last >= int64(retryEvery)*9/10 && u.tried.CompareAndSwap(last, now)
}

// state is level in a word, for people; why is empty if all is well.
func (u *upstream) state() (word, why string) {
	level := u.level()
	if text := u.reason.Load(); text != nil && level != healthy {
		why = *text
	}
	if u.drained.Load() {
		return admin.UpstreamDrained, why
	}
	return [...]string{healthy: admin.UpstreamUp, ill: admin.UpstreamIll, away: admin.UpstreamDown}[level], why
}

// learn takes what became of asking u for something: nil, or why there was no
// answer.
func (u *upstream) learn(err error) {
	if m := u.meter.Load(); m != nil && err != nil {
		m.errors[errorKind(err)].Inc()
	}
	switch {
	case err == nil:
		if u.health.Load() == away { // an ill one that answers is still ill: its ping says when it is not
			u.reached()
		}
	case isDial(err):
		u.failed(err)
	default:
		u.strike(err.Error())
	}
}

// errorKind is the label of an error that came in place of an answer.
func errorKind(err error) string {
	var handshake *handshakeError
	switch {
	case errors.As(err, &handshake):
		return errorTLS
	case isDial(err):
		return errorDial
	case timedOut(err):
		return errorTimeout
	}
	return errorBroken
}

// answered takes the status of an answer of u, and how long it took.
func (u *upstream) answered(status int, took time.Duration) {
	if m := u.meter.Load(); m != nil {
		m.requests[class(status)].Inc()
		m.seconds.Observe(took.Seconds())
	}
	if status >= http.StatusBadGateway && status <= http.StatusGatewayTimeout {
		u.strike(fmt.Sprintf("answers %d", status))
	} else if u.strikes.Load() != 0 {
		u.strikes.Store(0)
	}
}

// strike counts a request that went wrong. Some do, for reasons of their own; many
// in a row, with no good answer between them, are the node's.
func (u *upstream) strike(why string) {
	if u.strikes.Add(1) < strikesOut {
		return
	}
	u.strikes.Store(0)
	now := time.Now()
	if was := u.suspect.Swap(now.Add(suspectFor).UnixNano()); was > now.UnixNano() {
		return
	}
	text := fmt.Sprintf("%d requests in a row failed, the last with: %s", strikesOut, why)
	u.reason.Store(&text)
	if m := u.meter.Load(); m != nil {
		m.logger.Warn("upstream is avoided", "upstream", u.name, "for", suspectFor, "err", text)
	}
}

// failed notes that u is away, or ill.
func (u *upstream) failed(err error) {
	text := err.Error()
	u.reason.Store(&text)
	u.tried.Store(time.Now().UnixNano())
	now := ill
	if isDial(err) {
		now = away
	}
	if m := u.meter.Load(); u.health.Swap(now) == healthy && m != nil {
		m.logger.Warn("upstream is down", "upstream", u.name, "err", err)
	}
}

// reached notes that u is healthy.
func (u *upstream) reached() {
	if m := u.meter.Load(); u.health.Swap(healthy) != healthy && m != nil {
		m.logger.Info("upstream is up again", "upstream", u.name)
	}
}
