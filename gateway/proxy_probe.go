package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"
)

const (
	probeEvery   = 5 * time.Second
	probeTimeout = 2 * time.Second
	probeMisses  = 2 // late or bad answers in a row that make an upstream ill; one good answer heals it
)

// defaultHealthPath is Mattermost's ping. With get_server_status in its query it
// would write to the database and the file store each time.
const defaultHealthPath = "/api/v4/system/ping"

var errBadPing = errors.New("bad answer to the health check")

// watch asks every upstream for a sign of health until ctx ends, so that an
// upstream that nobody asks for anything is still known to be up or down. It also
// empties those that are drained, and one that is put back is asked at once.
func (p *proxy) watch(ctx context.Context) error {
	var emptying sync.WaitGroup
	defer emptying.Wait()
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	misses := map[*upstream]int{}
	for {
		s := p.settings.Load()
		p.emptyDrained(ctx, s, &emptying) // each time: a handshake may end after its upstream was drained
		results := make([]error, len(s.pool.upstreams))
		var wait sync.WaitGroup
		for i, u := range s.pool.upstreams {
			wait.Go(func() { results[i] = s.pool.probe(ctx, u, s.domain) })
		}
		wait.Wait()
		if ctx.Err() != nil {
			return nil
		}
		judge(s.pool.upstreams, results, misses)
		select {
		case <-ctx.Done():
			return nil
		case <-p.drains.changed:
		case <-tick.C:
		}
	}
}

// judge takes what probing the upstreams gave.
func judge(upstreams []*upstream, results []error, misses map[*upstream]int) {
	for i, u := range upstreams {
		if results[i] == nil {
			misses[u] = 0
			u.reached()
			continue
		}
		misses[u]++
		if isDial(results[i]) || misses[u] >= probeMisses {
			u.failed(results[i])
		}
	}
	for u := range misses { // forget those that a reload removed
		if !slices.Contains(upstreams, u) {
			delete(misses, u)
		}
	}
}

// probe asks u, as a client of domain would, for its health: it must answer 200.
func (p *pool) probe(ctx context.Context, u *upstream, domain string) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.scheme+"://"+u.host+p.ping, nil)
	if err != nil {
		return err
	}
	req.Host = domain
	req.Header.Set("User-Agent", "sallyport-probe")
	req.Header.Set("X-Forwarded-Proto", "https")
	resp, err := p.transport.RoundTrip(req)
	if err != nil {
		return err
	}
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10) // so that the connection can be kept
	if err := resp.Body.Close(); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%w %s: %s", errBadPing, p.ping, resp.Status)
	}
	return nil
}
