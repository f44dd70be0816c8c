package main

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A watchRig is a directory with a configuration that is watched.
type watchRig struct {
	t       *testing.T
	dir     string
	gateway *fakeGateway
	log     *bytes.Buffer
	live    *live
	look    chan time.Time
}

const watched = "domain: chat.example.com\nturn: {secret_file: %/secret}\nreload: {watch: true}\n"

// watching runs act beside a watcher.
func watching(t *testing.T, act func(*watchRig)) {
	t.Helper()
	r := &watchRig{t: t, dir: t.TempDir(), gateway: newFake(), log: new(bytes.Buffer)}
	r.write("secret", "0123456789abcdef")
	r.write("config.yaml", watched)
	synctest.Test(t, func(t *testing.T) {
		file := r.path("config.yaml")
		r.live = newLive(r.gateway, slog.New(slog.NewTextHandler(r.log, nil)), load(file, nil))
		r.look = make(chan time.Time)
		go r.live.watch(t.Context(), r.look)
		r.looks(3)
		r.reloads(0)
		act(r)
	})
}

func (r *watchRig) path(name string) string { return filepath.Join(r.dir, name) }

// write writes a file; % in content stands for the directory.
func (r *watchRig) write(name, content string) {
	r.t.Helper()
	r.must(os.WriteFile(r.path(name), []byte(strings.ReplaceAll(content, "%", r.dir)), 0o600))
}

func (r *watchRig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// looks lets the watcher look at the files n times.
func (r *watchRig) looks(n int) {
	for range n {
		r.look <- time.Time{}
		synctest.Wait()
	}
}

// reloads wants the gateway to have been given n configurations in all.
func (r *watchRig) reloads(n int) {
	r.t.Helper()
	if got := len(r.gateway.got); got != n {
		r.t.Errorf("%d reloads, want %d; log:\n%s", got, n, r.log)
	}
}

func TestWatchInPlaceAndByRename(t *testing.T) {
	watching(t, func(r *watchRig) {
		r.write("config.yaml", watched+"drain: {timeout: 1h}\n")
		r.looks(1)
		r.reloads(0) // it may still be written
		r.looks(1)
		r.reloads(1)
		r.write("next", watched+"drain: {timeout: 3h}\n")
		r.must(os.Rename(r.path("next"), r.path("config.yaml")))
		r.looks(5)
		r.reloads(2)
		r.must(os.Chtimes(r.path("config.yaml"), time.Unix(1, 0), time.Unix(1, 0))) // touched, not changed
		r.looks(5)
		r.reloads(2)
		if got := r.gateway.got[1].Drain.Timeout; got != 3*time.Hour {
			t.Errorf("drain.timeout %s", got)
		}
	})
}

// Kubernetes lets a link to a directory, ..data, lead to another one.
func TestWatchSymbolicLinks(t *testing.T) {
	watching(t, func(r *watchRig) {
		for _, v := range []string{"v1", "v2"} {
			r.must(os.Mkdir(r.path(v), 0o700))
			r.write(v+"/config.yaml", watched+"drain: {timeout: "+v[1:]+"h}\n")
		}
		r.must(os.Symlink("v1", r.path("..data")))
		r.must(os.Remove(r.path("config.yaml")))
		r.must(os.Symlink("..data/config.yaml", r.path("config.yaml")))
		r.looks(3)
		r.reloads(1)
		r.must(os.Symlink("v2", r.path("..data_tmp")))
		r.must(os.Rename(r.path("..data_tmp"), r.path("..data")))
		r.looks(3)
		r.reloads(2)
		if got := r.gateway.got[1].Drain.Timeout; got != 2*time.Hour {
			t.Errorf("drain.timeout %s", got)
		}
	})
}

// A file that is half there at one look is whole at the next.
func TestWatchHalfWritten(t *testing.T) {
	watching(t, func(r *watchRig) {
		r.write("config.yaml", watched+"drain: {tim")
		r.looks(1)
		r.write("config.yaml", watched+"drain: {timeout: 1h")
		r.looks(1)
		r.write("config.yaml", watched+"drain: {timeout: 1h}\n")
		r.looks(2)
		r.reloads(1)
		if strings.Contains(r.log.String(), "refused") {
			t.Errorf("log:\n%s", r.log)
		}
	})
}

func TestWatchBrokenFile(t *testing.T) {
	watching(t, func(r *watchRig) {
		refusals := func(want int) {
			t.Helper()
			if got := strings.Count(r.log.String(), "reload refused"); got != want {
				t.Errorf("%d complaints, want %d:\n%s", got, want, r.log)
			}
		}
		r.write("config.yaml", watched+"listn: {}\n")
		r.looks(20)
		refusals(1)
		r.must(os.Remove(r.path("config.yaml")))
		r.looks(20)
		refusals(2)
		r.write("config.yaml", watched) // as it is in force: read all the same
		r.looks(20)
		refusals(2)
		r.reloads(1)
		if r.gateway.failed != 2 {
			t.Errorf("%d failures counted", r.gateway.failed)
		}
	})
}

// A configuration that comes before the secret it names is taken when the secret
// is there.
func TestWatchSecrets(t *testing.T) {
	watching(t, func(r *watchRig) {
		r.write("secret", "fedcba9876543210")
		r.looks(3)
		r.reloads(1)
		r.gateway.err = errors.New("no such file")
		r.write("config.yaml", strings.Replace(watched, "secret}", "other}", 1))
		r.looks(10)
		r.reloads(2)
		r.gateway.err = nil
		r.write("other", "0123456789abcdef")
		r.looks(10)
		r.reloads(3)
	})
}

// A signal's reload is not done again, and what it turns off is off.
func TestWatchBesideASignal(t *testing.T) {
	watching(t, func(r *watchRig) {
		r.write("config.yaml", watched+"drain: {timeout: 1h}\n")
		_, err := r.live.reload()
		r.must(err)
		r.looks(5)
		r.reloads(1)
		r.write("config.yaml", strings.Replace(watched, "true", "false", 1))
		r.looks(5)
		r.reloads(2)
		r.write("config.yaml", watched)
		r.looks(5)
		r.reloads(2)
		_, err = r.live.reload()
		r.must(err)
		r.reloads(3)
		r.write("secret", "fedcba9876543210")
		r.looks(5)
		r.reloads(4)
	})
}

// The CAs of upstreams are watched like the secrets: they are renewed, too.
func TestWatchUpstreamCA(t *testing.T) {
	watching(t, func(r *watchRig) {
		r.write("ca.pem", "one")
		r.write("config.yaml", watched+"proxy: {upstream_ca_file: %/ca.pem}\n")
		r.looks(3)
		r.reloads(1)
		r.write("ca.pem", "two")
		r.looks(3)
		r.reloads(2)
	})
}
