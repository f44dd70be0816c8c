package gateway

import (
	"bytes"
	"io"
	"net/http"
	"strings"
)

// isUpload reports whether the body of r may be too much for a slow client to
// send while Mattermost waits. Paths say little: plugins have their own. A body
// that does not tell its length may be one half of a dialogue, unless it is a
// form or goes to an upload session.
func (s *spool) isUpload(r *http.Request) bool {
	if r.ContentLength >= 0 {
		return r.ContentLength > s.small
	}
	return strings.HasPrefix(r.Header.Get("Content-Type"), "multipart/form-data") || strings.Contains(r.URL.Path, "/uploads/")
}

// upload takes the body of r into a file until all of it is there, or the rest
// will soon be, or there is no more room, and puts what reads it there, and then
// the rest, in its place. done must be called when r was answered: nobody else
// closes what was put there. The error is of reading the body.
func (s *spool) upload(limits Spool, r *http.Request) (done func(), err error) {
	if limits.Dir == "" || !s.isUpload(r) {
		return func() {}, nil
	}
	f, err := s.open(limits)
	if err != nil {
		s.refused(limits.Dir, err)
		return func() {}, nil
	}
	total := r.ContentLength
	if total < 0 {
		total = limits.MaxFile // as long as it may be
	}
	b, p := &spooledBody{file: f, more: r.Body}, s.newPace(total)
	err = b.fill(p)
	if p.slow {
		s.metrics.transfers.WithLabelValues(spoolUp).Inc()
	}
	if err != nil {
		f.close()
		return nil, err
	}
	r.Header.Del("Expect") // 100 Continue was said when reading began
	r.Body = b
	return f.close, nil
}

// A spooledBody is the body of a request: what is in the file, then what did not
// fit, then the rest as it comes.
type spooledBody struct {
	file  *spoolFile
	off   int64  // read of the file
	rest  []byte // came behind what is in the file
	whole bool   // more is at its end
	more  io.ReadCloser
}

// fill reads more into the file until p or the disk says to stop.
func (b *spooledBody) fill(p *pace) error {
	buf := b.file.spool.buffers.Get()
	defer b.file.spool.buffers.Put(buf)
	for {
		n, err := b.more.Read(buf)
		if err != nil && err != io.EOF {
			return err
		}
		b.whole = err == io.EOF
		written, fault := b.file.Write(buf[:n])
		if fault != nil {
			b.rest = bytes.Clone(buf[written:n])
			b.file.spool.refused(b.file.limits.Dir, fault)
			return nil
		}
		if b.whole || p.due(b.file.size) && p.quick(b.file.size) {
			return nil
		}
	}
}

// Read implements io.Reader.
func (b *spooledBody) Read(p []byte) (int, error) {
	switch {
	case b.off < b.file.size:
		n, err := b.file.readAt(p, b.off, b.file.size)
		b.off += int64(n)
		if b.off == b.file.size {
			b.file.close() // others may need the room while the rest comes
		}
		return n, err
	case len(b.rest) > 0:
		n := copy(p, b.rest)
		b.rest = b.rest[n:]
		return n, nil
	case b.whole:
		return 0, io.EOF
	}
	return b.more.Read(p)
}

// Close implements io.Closer.
func (b *spooledBody) Close() error {
	b.file.close()
	return b.more.Close()
}
