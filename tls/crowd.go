package tls

import (
	"container/list"
	"errors"
	"io"
	"sync"
)

// errDisplaced ends a handshake in favour of a later one.
var errDisplaced = errors.New("others have begun handshakes, and this one waited longest")

// A crowd bounds how many handshakes wait for their client at once. When one too
// many does, the one that has waited longest is closed: honest clients answer
// within a round trip, and those who never mean to answer push out each other.
type crowd struct {
	most int

	mu    sync.Mutex // guards the following
	conns list.List  // of io.Closer, first come first
}

func newCrowd(most int) *crowd { return &crowd{most: most} }

// enter adds c, and closes the one that has waited longest if that is too many.
func (w *crowd) enter(c io.Closer) *list.Element {
	w.mu.Lock()
	var longest io.Closer
	if w.conns.Len() >= w.most {
		longest = w.conns.Remove(w.conns.Front()).(io.Closer)
	}
	e := w.conns.PushBack(c)
	w.mu.Unlock()
	if longest != nil {
		_ = longest.Close()
	}
	return e
}

// leave removes what enter returned. It reports whether that was still there.
func (w *crowd) leave(e *list.Element) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	before := w.conns.Len()
	w.conns.Remove(e)
	return w.conns.Len() < before
}
