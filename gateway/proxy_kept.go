package gateway

import (
	"slices"
	"syscall"
	"time"
)

// take returns a kept connection to u that is still open, nil if there is none.
func (q *quick) take(u *upstream) *line {
	for {
		l := q.last(u)
		if l == nil {
			return nil
		}
		if time.Since(l.since) < q.idle && l.quiet() {
			return l
		}
		_ = l.Close()
	}
}

// last takes the line that was used last, so that those of a rush get old.
func (q *quick) last(u *upstream) *line {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := q.kept[u]
	if s == nil || len(s.lines) == 0 {
		return nil
	}
	end := len(s.lines) - 1
	l := s.lines[end]
	s.lines[end] = nil
	s.lines = s.lines[:end]
	return l
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
	s := q.kept[u]
	if s == nil {
		s = new(shelf)
		q.kept[u] = s
	}
	if q.closed || len(s.lines) >= idlePerHost {
		_ = l.Close()
		return
	}
	s.lines = append(s.lines, l)
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
	for u, s := range q.kept {
		old := 0
		for old < len(s.lines) && now.Sub(s.lines[old].since) >= q.idle { // the oldest come first
			_ = s.lines[old].Close()
			old++
		}
		s.lines = slices.Delete(s.lines, 0, old)
		if len(s.lines) == 0 {
			delete(q.kept, u)
		} else if left := q.idle - now.Sub(s.lines[0].since); next < 0 || left < next {
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
	if s := q.kept[u]; s != nil {
		s.close()
	}
	delete(q.kept, u)
}

// close closes all that is kept, and what would be from now on.
func (q *quick) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	for _, s := range q.kept {
		s.close()
	}
	clear(q.kept)
	if q.sweep != nil {
		q.sweep.Stop()
	}
}

func (s *shelf) close() {
	for _, l := range s.lines {
		_ = l.Close()
	}
}
