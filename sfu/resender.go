package sfu

import (
	"sync"
	"time"
)

// A resender is what packets are sent again with.
type resender struct {
	out     *outbox
	payload []byte
	now     time.Time
	before  time.Time // what was sent again since is not yet sent once more
}

// keptResenders is how many resenders are kept that nobody uses.
const keptResenders = 4

// resenders lends resenders, to each who asks one of its own: to send is a system
// call, for which others need not wait. Mostly one is enough.
type resenders struct {
	mux *mux

	mu   sync.Mutex // guards free
	free []*resender
}

func (p *resenders) get() *resender {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.free); n > 0 {
		r := p.free[n-1]
		p.free = p.free[:n-1]
		return r
	}
	return &resender{out: p.mux.newOutbox(), payload: make([]byte, 0, maxDatagram)}
}

// put takes a resender back, whose outbox is empty.
func (p *resenders) put(r *resender) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.free) < keptResenders {
		p.free = append(p.free, r)
	}
}
