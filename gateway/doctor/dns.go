package doctor

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
)

// checkDNS resolves the name and connects to each address. A browser takes the
// first one that works after a wait; a phone may not.
func checkDNS(ctx context.Context, t *Target) result {
	if _, err := netip.ParseAddr(t.Host); err == nil || t.Host == "localhost" {
		return skipped("%s needs no DNS", t.Host).todo("users need a name: set domain")
	}
	found, err := t.resolve(ctx, t.Host)
	if err != nil {
		return unreachable(err, t.Host, "domain")
	}
	if r, other := t.elsewhere(ctx, found); other {
		return r
	}
	silent := t.silent(ctx, found)
	switch {
	case len(silent) == len(found):
		return failed("%s is %s, where nobody answers on port %s", t.Host, list(found), t.port()).
			todo("correct the DNS record, or open TCP %s; behind a NAT that does not lead back, try -address with the local address", t.port())
	case len(silent) > 0:
		return failed("%s is %s, but nobody answers at %s: some users wait or cannot connect", t.Host, list(found), list(silent)).
			todo("remove the A or AAAA record of %s, or listen there", list(silent))
	}
	return passed("%s is %s", t.Host, list(found))
}

// elsewhere says whether we were told to connect to an address that the name
// does not have.
func (t *Target) elsewhere(ctx context.Context, found []netip.Addr) (r result, other bool) {
	address, _, err := net.SplitHostPort(t.HTTPSAddress)
	if err != nil || address == t.Host {
		return result{}, false
	}
	here, err := t.resolve(ctx, address)
	if err != nil || slices.ContainsFunc(here, func(a netip.Addr) bool { return slices.Contains(found, a) }) {
		return result{}, false
	}
	return warned("%s is %s, and not %s that is examined here", t.Host, list(found), list(here)).
		todo("if %s is a local address behind a NAT, that is right; else change the DNS record", list(here)), true
}

// silent returns the addresses that nobody answers at.
func (t *Target) silent(ctx context.Context, all []netip.Addr) []netip.Addr {
	answers := make([]bool, len(all))
	var dials sync.WaitGroup
	for i, a := range all {
		dials.Go(func() {
			var d net.Dialer
			conn, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(a, t.Port).String())
			if err == nil {
				_ = conn.Close()
			}
			answers[i] = err == nil
		})
	}
	dials.Wait()
	var silent []netip.Addr
	for i, a := range all {
		if !answers[i] {
			silent = append(silent, a)
		}
	}
	return silent
}

func list(all []netip.Addr) string {
	names := make([]string, 0, len(all))
	for _, a := range all {
		names = append(names, a.String())
	}
	return strings.Join(names, ", ")
}
