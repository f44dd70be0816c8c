package gateway

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"
)

const (
	probeEvery   = 5 * time.Second
	probeTimeout = 2 * time.Second
	probeMisses  = 2 // slow answers in a row that make an upstream count as down
)

// watch asks every upstream for a sign of life until ctx ends, so that an
// upstream that nobody asks for anything is still known to be up or down.
func (p *proxy) watch(ctx context.Context) error {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	misses := map[*upstream]int{}
	for {
		pool := p.settings.Load().pool
		results := make([]error, len(pool.upstreams))
		var wait sync.WaitGroup
		for i, u := range pool.upstreams {
			wait.Go(func() { results[i] = pool.probe(ctx, u) })
		}
		wait.Wait()
		if ctx.Err() != nil {
			return nil
		}
		judge(pool.upstreams, results, misses)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// judge marks upstreams up and down by what probing them gave.
func judge(upstreams []*upstream, results []error, misses map[*upstream]int) {
	for i, u := range upstreams {
		var dial *dialError
		if results[i] == nil {
			misses[u] = 0
			u.reached()
			continue
		}
		misses[u]++
		if errors.As(results[i], &dial) || misses[u] >= probeMisses {
			u.failed(results[i])
		}
	}
	for u := range misses { // forget those that a reload removed
		if !slices.Contains(upstreams, u) {
			delete(misses, u)
		}
	}
}

// probe asks for Mattermost's ping. Any answer is a sign of life: what is in it
// is for the doctor to judge.
func (p *pool) probe(ctx context.Context, u *upstream) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.scheme+"://"+u.host+"/api/v4/system/ping", nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "sallyport-probe")
	resp, err := p.transport.RoundTrip(req)
	if err != nil {
		return err
	}
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10) // so that the connection can be kept
	return resp.Body.Close()
}
