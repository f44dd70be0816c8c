package tls

import (
	"sync"
	"time"
)

// health remembers what last went wrong with getting each certificate, until
// that is over.
type health struct {
	mu     sync.Mutex // guards the following
	faults map[string]fault
	advice string
}

// advise keeps what clients may have against the certificate in use; "" is
// nothing.
func (h *health) advise(text string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.advice = text
}

func (h *health) warning() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.advice
}

// A fault is why the certificate of one name could not be had.
type fault struct {
	err  error
	at   time.Time
	over func() bool // whether it has been had since; nil: set will tell
	next time.Time   // when it is tried again; zero if unknown
}

// retry records when the certificate of name is tried for again.
func (h *health) retry(name string, at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if f, ok := h.faults[name]; ok {
		f.next = at
		h.faults[name] = f
	}
}

// set records why the certificate of name cannot be had, or with a nil error
// that it was. Over, if not nil, tells of what nobody reports: that somebody
// else got the certificate, for instance.
func (h *health) set(name string, err error, over func() bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err == nil {
		delete(h.faults, name)
		return
	}
	if h.faults == nil {
		h.faults = make(map[string]fault)
	}
	h.faults[name] = fault{err: err, at: time.Now(), over: over}
}

// last returns the latest fault that is not over, with the first of all next
// attempts; its error is nil if there is none.
func (h *health) last() (latest fault) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var next time.Time
	for name, f := range h.faults {
		if f.over != nil && f.over() {
			delete(h.faults, name)
			continue
		}
		if latest.err == nil || f.at.After(latest.at) {
			latest = f
		}
		if !f.next.IsZero() && (next.IsZero() || f.next.Before(next)) {
			next = f.next
		}
	}
	latest.next = next
	return latest
}
