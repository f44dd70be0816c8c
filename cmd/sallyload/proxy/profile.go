package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// profileSeconds is how long a profile is taken.
const profileSeconds = 4

// profiles names the loads under which they are taken.
var profiles = map[string]load{"http1": loads[0], "http2": loads[3]}

// takeProfiles writes NAME.pprof, and NAME.requests with the number of requests
// that were answered meanwhile.
func (b *bench) takeProfiles(ctx context.Context) error {
	t, err := b.start(ctx, "sallyport")
	if err != nil {
		return err
	}
	defer t.stop()
	for name, l := range profiles {
		if _, err := l.run(ctx, t.addr, b.dir, time.Second); err != nil {
			return err
		}
		taken := make(chan error, 1)
		go func() {
			taken <- fetch(ctx, fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", t.admin, profileSeconds), filepath.Join(b.profile, name+".pprof"))
		}()
		got, err := l.run(ctx, t.addr, b.dir, (profileSeconds+1)*time.Second)
		if err != nil {
			return err
		}
		if err := <-taken; err != nil {
			return fmt.Errorf("take a profile: %w", err)
		}
		n := int(float64(got.requests) / got.took.Seconds() * profileSeconds)
		if err := os.WriteFile(filepath.Join(b.profile, name+".requests"), []byte(strconv.Itoa(n)), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// fetch writes what url answers to file.
func fetch(ctx context.Context, url, file string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, resp.Status)
	}
	return os.WriteFile(file, b, 0o644)
}
