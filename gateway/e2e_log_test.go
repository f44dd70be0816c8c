package gateway_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"

	"sallyport/gateway"
)

// A logBook keeps what is logged, and wakes those who wait for a line.
type logBook struct {
	mu    sync.Mutex // guards the following
	text  bytes.Buffer
	grown chan struct{}
}

func newLogBook() *logBook { return &logBook{grown: make(chan struct{})} }

func (b *logBook) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.grown)
	b.grown = make(chan struct{})
	return b.text.Write(p)
}

func (b *logBook) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// await returns the first line that contains want. The error is ctx's.
func (b *logBook) await(ctx context.Context, want string) (string, error) {
	for {
		b.mu.Lock()
		text, grown := b.text.String(), b.grown
		b.mu.Unlock()
		for line := range strings.Lines(text) {
			if strings.HasSuffix(line, "\n") && strings.Contains(line, want) {
				return line, nil
			}
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return "", fmt.Errorf("wait for %q in the log: %w:\n%s", want, context.Cause(ctx), text)
		}
	}
}

// addresses reads the line that says where a gateway serves.
func addresses(t *testing.T, line string) (a gateway.Addrs) {
	t.Helper()
	var said struct {
		HTTPS, HTTP, UDP, API, Admin string
		MediaUDP                     string `json:"media_udp"`
		MediaTCP                     string `json:"media_tcp"`
	}
	must(t, json.Unmarshal([]byte(line), &said))
	return gateway.Addrs{
		HTTPS: said.HTTPS, HTTP: said.HTTP, UDP: said.UDP, API: said.API, Admin: said.Admin,
		MediaUDP: said.MediaUDP, MediaTCP: said.MediaTCP,
	}
}
