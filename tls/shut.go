package tls

import (
	"context"
	"time"
)

// Shut closes the socket while those who are in stay: who comes now is refused,
// or waits for the next process if a service manager keeps the socket. It
// returns when nobody is left whose handshake is under way, or when ctx ends.
func (p *Port) Shut(ctx context.Context) {
	p.shut.Store(true)
	p.ln.Close()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for p.pending.size() > 0 {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
