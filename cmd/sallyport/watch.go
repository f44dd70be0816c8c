package main

import (
	"context"
	"crypto/sha256"
	"io"
	"os"
	"time"
)

// watchInterval is how often the files are looked at. A change is taken over at
// the second look that finds it, so that a file is not read while it is written.
const watchInterval = 2 * time.Second

// A digest tells one content of the configuration and its secrets from another.
type digest [sha256.Size]byte

// watch reloads when the configuration or a secret has changed and reload.watch
// is on. It looks at what is in the files and at nothing else, so it sees a change
// however it was made: in place, by rename, or by a symbolic link that leads
// elsewhere, as Kubernetes does it. What is found to be broken is complained of
// once, and read again when it has changed.
func (l *live) watch(ctx context.Context, look <-chan time.Time) {
	var before digest
	for {
		select {
		case <-ctx.Done():
			return
		case <-look:
		}
		last, seen := l.state()
		if !last.Reload.Watch {
			continue
		}
		now := digestOf(sum(l.file), last)
		if now != seen && now == before {
			_, _ = l.reload()
		}
		before = now
	}
}

func (l *live) state() (last loaded, seen digest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last, l.seen
}

// digestOf adds the secrets and the CAs that c names to the digest of its file.
func digestOf(file digest, c loaded) digest {
	h := sha256.New()
	h.Write(file[:])
	for _, f := range c.SecretFiles() {
		one := sum(f.Name)
		h.Write(one[:])
	}
	if c.Proxy.UpstreamCAFile != "" {
		one := sum(c.Proxy.UpstreamCAFile)
		h.Write(one[:])
	}
	return digest(h.Sum(nil))
}

// sum is of the content of a file; one that cannot be read has none, which is a
// content, too.
func sum(name string) digest {
	f, err := os.Open(name)
	if err != nil {
		return digest{}
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, io.LimitReader(f, maxFile+1)); err != nil {
		return digest{}
	}
	return digest(h.Sum(nil))
}
