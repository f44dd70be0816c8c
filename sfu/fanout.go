package sfu

import (
	"slices"
	"sync"
	"sync/atomic"
)

// A fanout is the set of receivers of one published track. They come and go
// from any goroutine: the set is replaced, never modified, so forwarding takes
// no lock and a join never delays a packet. The zero fanout is empty.
type fanout struct {
	mu    sync.Mutex              // held to replace downs, not to read it
	downs atomic.Pointer[[]*down] // nil until somebody watches
}

func (f *fanout) add(d *down) {
	f.replace(func(all []*down) []*down { return append(all, d) })
}

func (f *fanout) remove(d *down) {
	f.replace(func(all []*down) []*down {
		return slices.DeleteFunc(all, func(x *down) bool { return x == d })
	})
}

// replace swaps in what edit makes of a copy of the current receivers.
func (f *fanout) replace(edit func([]*down) []*down) {
	f.mu.Lock()
	defer f.mu.Unlock()
	next := edit(slices.Clone(f.watching()))
	f.downs.Store(&next)
}

// watching returns the receivers, not to be modified.
func (f *fanout) watching() []*down {
	if d := f.downs.Load(); d != nil {
		return *d
	}
	return nil
}
