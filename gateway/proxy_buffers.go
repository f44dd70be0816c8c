package gateway

import (
	"bytes"
	"io"
	"net/http"
	"sync"
)

// bufferSize is what one copying direction of one request holds.
const bufferSize = 32 << 10

// buffers are those that bodies are copied with.
type buffers struct{ pool sync.Pool }

func (b *buffers) Get() []byte {
	if p, ok := b.pool.Get().(*[bufferSize]byte); ok {
		return p[:]
	}
	return make([]byte, bufferSize)
}

func (b *buffers) Put(p []byte) { b.pool.Put((*[bufferSize]byte)(p)) }

// smallSize is the size in bytes up to which a body is taken whole before anybody is
// asked: Mattermost does not wait for a slow client then, and the request can go to
// another node when one cannot be reached.
const smallSize = bufferSize

// A smallBody is a body that has been taken whole.
type smallBody struct {
	bytes.Reader
	whole []byte
}

// takeSmall takes the body of r whole if it is small. It takes no more memory than
// twice what has come. The error is of reading it.
func takeSmall(r *http.Request) error {
	if r.ContentLength <= 0 || r.ContentLength > smallSize || len(r.Trailer) > 0 || r.Header.Get("Expect") != "" {
		return nil
	}
	var b bytes.Buffer
	if _, err := b.ReadFrom(r.Body); err != nil {
		return err
	}
	r.Body = newSmallBody(b.Bytes())
	return nil
}

func newSmallBody(whole []byte) io.ReadCloser {
	b := &smallBody{whole: whole}
	b.Reset(whole)
	return b
}

// Close implements io.Closer.
func (b *smallBody) Close() error { return nil }
