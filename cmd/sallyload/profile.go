package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"time"
)

// profiles are what a Go program tells of itself under /debug/pprof, each taken
// over the time measured.
var profiles = map[string]string{"cpu": "profile", "allocs": "allocs", "mutex": "mutex"}

// profileSlack is how long a profile may take to be written.
const profileSlack = 30 * time.Second

// errNoPprof means that the server's address of profiles is not known.
var errNoPprof = errors.New("no address to profile: name one with -pprof")

// startProfiles asks the server for its profiles. The function it returns waits
// for them, and is to be called when the window is closed.
func (l *load) startProfiles(ctx context.Context) (func() error, error) {
	if l.profile == "" {
		return func() error { return nil }, nil
	}
	base := l.pprof
	if admin := l.server.announced["admin"]; base == "" && admin != "" {
		base = "http://" + admin
	}
	if base == "" {
		return nil, errNoPprof
	}
	dir := filepath.Join(l.profile, strings.Map(plain, l.shape().name))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("write profiles: %w", err)
	}
	seconds := max(int(l.duration/time.Second), 1)
	ctx, cancel := context.WithTimeout(ctx, l.duration+profileSlack)
	var all sync.WaitGroup
	var mu sync.Mutex
	var failed error
	for file, name := range profiles {
		all.Go(func() {
			err := fetch(ctx, base, name, seconds, filepath.Join(dir, file+".pprof"))
			mu.Lock()
			defer mu.Unlock()
			failed = errors.Join(failed, err)
		})
	}
	return func() error {
		defer cancel()
		all.Wait()
		return failed
	}, nil
}

// profileSelf takes a CPU profile of this process until the function it returns
// is called. No file, no profile.
func profileSelf(file string) (func(), error) {
	if file == "" {
		return func() {}, nil
	}
	f, err := os.Create(file)
	if err == nil {
		err = pprof.StartCPUProfile(f)
	}
	if err != nil {
		return nil, fmt.Errorf("profile sallyload: %w", err)
	}
	return func() {
		pprof.StopCPUProfile()
		_ = f.Close()
	}, nil
}

// plain keeps what is safe in a file's name.
func plain(c rune) rune {
	if strings.ContainsRune(" /\\:", c) {
		return '-'
	}
	return c
}

func fetch(ctx context.Context, base, name string, seconds int, file string) error {
	fail := func(err error) error { return fmt.Errorf("fetch profile %s: %w", name, err) }
	address, err := url.JoinPath(base, "debug/pprof", name)
	if err != nil {
		return fail(err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address+"?seconds="+strconv.Itoa(seconds), nil)
	if err != nil {
		return fail(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fail(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %.200s", response.Status, body)
	}
	if err == nil {
		err = os.WriteFile(file, body, 0o644)
	}
	if err != nil {
		return fail(err)
	}
	return nil
}
