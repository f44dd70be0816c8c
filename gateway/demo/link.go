package demo

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"sallyport/sfu/wire"
)

const (
	firstRetry = 250 * time.Millisecond
	lastRetry  = 5 * time.Second
	steady     = 10 * time.Second // a link that lived this long starts the retries over
)

// errLinkDown means that the SFU cannot be reached at the moment.
var errLinkDown = errors.New("no link to the media server")

// A link is a connection to the SFU's API, authenticated and alive until Done.
type link interface {
	Send(wire.Envelope) error
	Close() error
	Done() <-chan struct{}
}

// A linkKeeper keeps one link up, as the Calls plugin does on each of its
// nodes.
type linkKeeper struct {
	dial    func(ctx context.Context) (link, error) // set once
	changed func(up bool)                           // set once; called by run
	log     *slog.Logger                            // set once

	mu   sync.Mutex // guards the following
	live link       // nil while there is none
}

// send passes one message to the SFU, or fails with errLinkDown.
func (k *linkKeeper) send(e wire.Envelope) error {
	k.mu.Lock()
	l := k.live
	k.mu.Unlock()
	if l == nil {
		return errLinkDown
	}
	if err := l.Send(e); err != nil {
		return fmt.Errorf("send %s: %w", e.Type, err)
	}
	return nil
}

// run dials, waits for the end of the link and dials again, more and more
// slowly while it fails, until ctx ends.
func (k *linkKeeper) run(ctx context.Context) {
	retry := firstRetry
	for ctx.Err() == nil {
		began := time.Now()
		if err := k.once(ctx); err != nil && ctx.Err() == nil {
			k.log.Warn("no link to the media server", "err", err, "retry", retry)
		}
		if time.Since(began) >= steady {
			retry = firstRetry
		}
		select {
		case <-ctx.Done():
		case <-time.After(retry):
		}
		retry = min(2*retry, lastRetry)
	}
}

// once lives as long as one link. It returns an error if there was none.
func (k *linkKeeper) once(ctx context.Context) error {
	l, err := k.dial(ctx)
	if err != nil {
		return err
	}
	defer l.Close()
	k.set(l)
	k.changed(true)
	select {
	case <-ctx.Done():
	case <-l.Done():
		k.log.Warn("link to the media server lost")
	}
	k.set(nil)
	k.changed(false)
	return nil
}

func (k *linkKeeper) set(l link) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.live = l
}
