package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// errBrokenOff says that an upstream ended in the middle of an answer.
var errBrokenOff = errors.New("upstream broke off its answer")

// An answerBody is the body of an answer. It notes when the upstream breaks it
// off: the client has the status by then, and nobody else would tell.
type answerBody struct {
	io.ReadCloser
	client   context.Context // ends when the client leaves, which breaks answers off as well
	exchange *exchange
}

// Read implements io.Reader.
func (b *answerBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF && b.client.Err() == nil {
		b.exchange.err = fmt.Errorf("%w: %w", errBrokenOff, err)
	}
	return n, err
}
