package gateway

import (
	"syscall"
	"time"
)

// take returns a kept connection to u that is still open, nil if there is none.
func (q *quick) take(u *upstream) *line {
	for {
		q.mu.Lock()
		kept := q.kept[u]
		if len(kept) == 0 {
			q.mu.Unlock()
			return nil
		}
		l := kept[len(kept)-1] // the one used last, so that those of a rush get old
		q.kept[u] = kept[:len(kept)-1]
		q.mu.Unlock()
		if time.Since(l.since) < q.idle && l.quiet() {
			return l
		}
		_ = l.Close()
	}
}

// quiet reports whether the other side has neither closed l nor said anything.
func (l *line) quiet() bool {
	if l.raw == nil {
		return true
	}
	quiet := false
	_ = l.raw.Read(func(fd uintptr) bool { // an error leaves it at false
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK)
		quiet = err == syscall.EAGAIN
		return true
	})
	return quiet
}

// keep keeps l for the next request to u.
func (q *quick) keep(u *upstream, l *line) {
	l.since = time.Now()
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || len(q.kept[u]) >= idlePerHost {
		_ = l.Close()
		return
	}
	q.kept[u] = append(q.kept[u], l)
	if q.sweep == nil {
		q.sweep = time.AfterFunc(q.idle, q.closeOld)
	}
}

// closeOld closes what was kept for too long.
func (q *quick) closeOld() {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	next := time.Duration(-1)
	for u, kept := range q.kept {
		for len(kept) > 0 && now.Sub(kept[0].since) >= q.idle { // the oldest come first
			_ = kept[0].Close()
			kept[0] = nil
			kept = kept[1:]
		}
		q.kept[u] = kept
		if len(kept) == 0 {
			delete(q.kept, u)
		} else if left := q.idle - now.Sub(kept[0].since); next < 0 || left < next {
			next = left
		}
	}
	if next < 0 {
		q.sweep = nil
		return
	}
	q.sweep.Reset(next)
}

// drop closes all that is kept for u.
func (q *quick) drop(u *upstream) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, l := range q.kept[u] {
		_ = l.Close()
	}
	delete(q.kept, u)
}

// close closes all that is kept, and what would be from now on.
func (q *quick) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	for _, kept := range q.kept {
		for _, l := range kept {
			_ = l.Close()
		}
	}
	clear(q.kept)
	if q.sweep != nil {
		q.sweep.Stop()
	}
}
