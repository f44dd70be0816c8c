package gateway

import (
	"bytes"
	"io"
	"net/http"
	"sync"
)

// download returns the body of resp, or what reads it ahead of a client that
// proves slow. Only answers of a known length: one without may never end.
func (s *spool) download(limits Spool, resp *http.Response) io.ReadCloser {
	if limits.Dir == "" || resp.ContentLength <= s.step {
		return resp.Body
	}
	return &aheadBody{spool: s, limits: limits, body: resp.Body, pace: s.newPace(resp.ContentLength)}
}

// An aheadBody is the body of an answer. While the client is quick it is only
// passed on; then a goroutine takes the rest from Mattermost as fast as that
// gives it, and the client reads the file behind it.
type aheadBody struct {
	spool  *spool
	limits Spool
	body   io.ReadCloser // the goroutine's from begin until filled is closed

	// These belong to the reader.
	pace    *pace
	passed  int64 // bytes read by the client before begin
	streams bool  // there is no room for it
	off     int64 // read of the file

	file   *spoolFile    // nil until begin
	filled chan struct{} // closed when the goroutine has ended

	mu   sync.Mutex // guards the following
	more sync.Cond  // on mu: one of them has changed
	size int64      // bytes in the file
	full bool       // the goroutine writes no more
	rest []byte     // what did not fit
	err  error      // of reading the body; nil if that goes on behind rest
}

// Read implements io.Reader.
func (a *aheadBody) Read(p []byte) (int, error) {
	if a.file == nil && !a.streams && a.pace.due(a.passed) && !a.pace.quick(a.passed) {
		a.begin()
	}
	if a.file == nil {
		n, err := a.body.Read(p)
		a.passed += int64(n)
		return n, err
	}
	size, full := a.await()
	if a.off < size {
		n, err := a.file.readAt(p, a.off, size)
		a.off += int64(n)
		if full && a.off == size {
			a.file.close()
		}
		return n, err
	}
	if len(a.rest) > 0 { // full: the goroutine is done with these
		n := copy(p, a.rest)
		a.rest = a.rest[n:]
		return n, nil
	}
	if a.err != nil {
		return 0, a.err
	}
	return a.body.Read(p)
}

// await waits until there is something to read, or nothing more will come.
func (a *aheadBody) await() (size int64, full bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.off == a.size && !a.full {
		a.more.Wait()
	}
	return a.size, a.full
}

func (a *aheadBody) begin() {
	f, err := a.spool.open(a.limits)
	if err != nil {
		a.spool.refused(a.limits.Dir, err)
		a.streams = true
		return
	}
	a.spool.metrics.transfers.WithLabelValues(spoolDown).Inc()
	a.file, a.filled = f, make(chan struct{})
	a.more.L = &a.mu
	go a.fill()
}

// fill reads the body into the file until either will not go on.
func (a *aheadBody) fill() {
	defer close(a.filled)
	buf := a.spool.buffers.Get()
	defer a.spool.buffers.Put(buf)
	for {
		n, err := a.body.Read(buf)
		written, fault := a.file.Write(buf[:n])
		if fault != nil {
			a.spool.refused(a.limits.Dir, fault)
		}
		a.mu.Lock()
		a.size = a.file.size
		a.rest, a.err = bytes.Clone(buf[written:n]), err
		a.full = err != nil || fault != nil
		a.more.Signal()
		a.mu.Unlock()
		if err != nil || fault != nil {
			return
		}
	}
}

// Close implements io.Closer.
func (a *aheadBody) Close() error {
	err := a.body.Close() // which ends a Read of it, too
	if a.file != nil {
		<-a.filled
		a.file.close()
	}
	return err
}
