package tls

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"
)

// Shut closes the socket while those who are in stay: who comes now is refused,
// or waits for the next process if a service manager keeps the socket. It
// returns when everybody who came is handed over and taken, or when ctx ends.
func (p *Port) Shut(ctx context.Context) {
	p.shut.Store(true)
	p.ln.Close()
	select {
	case <-p.last:
	case <-ctx.Done():
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for p.pending.size() > 0 || p.queued() > 0 {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// queued is how many are handed over and not taken.
func (p *Port) queued() int {
	return len(p.http.conns) + len(p.plain.conns) + len(p.turn.conns) + len(p.ice.conns)
}

// accept returns the next connection, or nil when ctx has ended. Errors such as
// a lack of file descriptors pass, so it waits a little and tries again.
func (p *Port) accept(ctx context.Context) (net.Conn, error) {
	for delay := 5 * time.Millisecond; ; delay = min(2*delay, time.Second) {
		c, err := p.ln.Accept()
		switch {
		case err == nil:
			return c, nil
		case ctx.Err() != nil:
			return nil, nil
		case p.shut.Load():
			close(p.last)
			<-ctx.Done()
			return nil, nil
		case errors.Is(err, net.ErrClosed):
			return nil, fmt.Errorf("accept on %s: %w", p.ln.Addr(), err)
		}
		p.opts.Logger.Error("cannot accept", "addr", p.ln.Addr().String(), "err", err)
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return nil, nil
		}
	}
}
