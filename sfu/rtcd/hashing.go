package rtcd

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// hashesPerCPU is how many keys a second may be hashed for each CPU.
	hashesPerCPU = 12
	// hashWait is how long a request waits for its turn.
	hashWait = 10 * time.Second
	// hashQueue is how many requests may wait for one client's turn.
	hashQueue = 64
)

var errBusy = errors.New("too many attempts")

// A hashQueues limits the CPU spent on bcrypt. Each client has a queue of its
// own, of which only the first takes part in the common rate: whoever floods us
// with wrong keys of one client fills that client's queue, and the others still
// get every other turn.
type hashQueues struct {
	rate *rate.Limiter

	mu     sync.Mutex // guards the following
	queues map[string]*hashTurn
}

// A hashTurn is the queue of one client. It exists while somebody is in it.
type hashTurn struct {
	first   chan struct{} // capacity 1: holds the token of who is first
	waiting int           // guarded by hashQueues.mu
}

func newHashQueues() *hashQueues {
	return &hashQueues{
		rate:   rate.NewLimiter(rate.Limit(hashesPerCPU*runtime.NumCPU()), 1),
		queues: make(map[string]*hashTurn),
	}
}

// do waits for the turn of one client's request and calls hash in it, unless
// skip, asked when the request is first in its client's queue, says that there
// is nothing left to hash. It fails with errBusy if the turn does not come
// within hashWait, or cannot.
func (h *hashQueues) do(ctx context.Context, client string, skip func() bool, hash func() error) error {
	ctx, cancel := context.WithTimeout(ctx, hashWait)
	defer cancel()
	turn := h.enter(client)
	if turn == nil {
		return errBusy
	}
	defer h.leave(client, turn)
	select {
	case turn.first <- struct{}{}:
	case <-ctx.Done():
		return errBusy
	}
	defer func() { <-turn.first }()
	if skip() {
		return nil
	}
	if h.rate.Wait(ctx) != nil {
		return errBusy
	}
	return hash()
}

func (h *hashQueues) enter(client string) *hashTurn {
	h.mu.Lock()
	defer h.mu.Unlock()
	turn := h.queues[client]
	if turn == nil {
		turn = &hashTurn{first: make(chan struct{}, 1)}
		h.queues[client] = turn
	}
	if turn.waiting >= hashQueue {
		return nil
	}
	turn.waiting++
	return turn
}

func (h *hashQueues) leave(client string, turn *hashTurn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if turn.waiting--; turn.waiting == 0 {
		delete(h.queues, client)
	}
}
