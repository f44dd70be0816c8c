package tls

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
)

// want sets the names that follow is to manage.
func (a *automatic) want(names []string) {
	wanted := make([]string, 0, len(names))
	for _, n := range names {
		wanted = append(wanted, strings.ToLower(n))
	}
	a.wanted.Store(&wanted)
}

// follow makes the names in managed those that are wanted. What managed holds
// ends the attempts to obtain a name's first certificate, and waits for them.
func (a *automatic) follow(ctx context.Context, e *engine, managed map[string]func(), parts *sync.WaitGroup) {
	wanted := *a.wanted.Load()
	for name, end := range managed {
		if !slices.Contains(wanted, name) {
			end()
			delete(managed, name)
			e.forget(name)
			a.opts.health.set(name, nil, nil)
		}
	}
	for _, name := range wanted {
		if managed[name] == nil {
			managed[name] = a.manage(ctx, e, name, parts)
		}
	}
}

// manage serves and renews a certificate for name, which it obtains if there is
// none. It returns at once; end ends the attempts to obtain one.
func (a *automatic) manage(ctx context.Context, e *engine, name string, parts *sync.WaitGroup) (end func()) {
	if a.load(ctx, e, name) {
		return func() {}
	}
	attempts, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	parts.Go(func() {
		defer close(done)
		a.obtain(attempts, e, name)
	})
	return func() {
		cancel()
		<-done
	}
}

// forget stops serving and renewing the certificates of name.
func (e *engine) forget(name string) {
	e.cache.RemoveManaged([]certmagic.SubjectIssuer{{Subject: name}})
}

// load takes the stored certificate of name into use and reports whether there
// is one.
func (a *automatic) load(ctx context.Context, e *engine, name string) bool {
	_, err := e.magic.CacheManagedCertificate(ctx, name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		a.fault(e, name, err)
		a.log.Error("cannot load stored certificate", "name", name, "err", err)
	}
	return err == nil
}

// obtain tries until there is a certificate for name, or ctx ends because nobody
// wants it any more.
func (a *automatic) obtain(ctx context.Context, e *engine, name string) {
	failures := 0
	// By this count certmagic knows to try Let's Encrypt's staging CA first
	// after a failure, which spares the limits of the real one.
	ctx = context.WithValue(ctx, certmagic.AttemptsCtxKey, &failures)
	for {
		err := e.obtain.ManageSync(ctx, []string{name})
		if err == nil || ctx.Err() != nil {
			return
		}
		failures++
		a.fault(e, name, err) // also those that certmagic emits no event for
		wait := a.backoff(failures, err)
		a.opts.health.retry(name, time.Now().Add(wait))
		a.log.Error("cannot obtain certificate", "name", name, "err", err, "retry_in", wait)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

// backoff says how long to wait after so many failures in a row. A CA that
// answers with a refusal counts its refusals: Let's Encrypt locks a name out
// after five in an hour. One that does not answer can be tried sooner.
func backoff(failures int, err error) time.Duration {
	if _, refused := errors.AsType[acme.Problem](err); refused {
		return min(time.Minute<<min(failures-1, 10), 6*time.Hour)
	}
	return min(time.Second<<min(failures-1, 10), 5*time.Minute)
}
