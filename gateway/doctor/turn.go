package doctor

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"sallyport/sfu/peer"
	"sallyport/turn"
)

// The answers of a TURN server, as an error's text tells them.
const (
	unauthorized = "error 401"
	forbidden    = "error 403"
	hungUp       = "failed to retransmit" // no answer: the socket is closed or was refused
	quotaReached = "error 486"
)

// checkTURN allocates over a path to the TURN server, and reaches the media
// server through the relay.
func checkTURN(path peer.Path) func(context.Context, *Target) result {
	return func(ctx context.Context, t *Target) result {
		if r, off := t.noTURN(path); off {
			return r
		}
		target := t.probe(path, netip.AddrPort{})
		quick, cancel := context.WithTimeout(ctx, checkLimit)
		defer cancel()
		res, err := turn.Probe(quick, target)
		if err != nil {
			return t.explainTURN(path, target, res, err)
		}
		allocated := fmt.Sprintf("allocated at %s in %s", target.Address, ms(res.Connect+res.Allocate))
		if r := t.throughRelay(ctx, path, res); r.status != Pass {
			return r
		} else if r.text != "" {
			return passed("%s; %s", allocated, r.text)
		}
		return passed("%s", allocated)
	}
}

// throughRelay looks whether packets reach the media server. That answers
// nobody who is not in a call, so a participant has to join; without the means
// to do that, the relay is asked for permission, which is the better half.
func (t *Target) throughRelay(ctx context.Context, path peer.Path, allocated turn.ProbeResult) result {
	if _, off := t.noCall(way{Path: path}); !off {
		if mux, done, err := t.link(ctx); err == nil {
			defer done()
			return t.joinAlone(ctx, mux, way{Path: path})
		}
	}
	media, err := t.mediaPeer(ctx)
	if err != nil {
		return unreachable(err, t.MediaUDP, "sfu.udp")
	}
	if !media.IsValid() {
		return passed("")
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second+3*(allocated.Connect+allocated.Allocate))
	defer cancel()
	target := t.probe(path, media)
	res, err := turn.Probe(ctx, target)
	switch {
	case err == nil:
		return passed("through it to %s and back in %s", media, ms(res.RoundTrip))
	case res.Relayed.IsValid() && timeout(err):
		return passed("it relays to %s", media)
	}
	return t.explainTURN(path, target, res, err)
}

// noTURN says why a path to the TURN server cannot be examined, if so.
func (t *Target) noTURN(path peer.Path) (r result, off bool) {
	switch {
	case t.TURNUsername == "":
		return skipped("no TURN credentials: turn.enabled is false, or the secret cannot be read").
			todo("users behind strict firewalls need TURN: turn.enabled, turn.secret_file"), true
	case path == peer.TURNUDP && t.UDPAddress == "":
		return skipped("listen.udp is off").todo("listen.udp: \":443\" serves users whose firewall lets UDP 443 out only"), true
	}
	return result{}, false
}

func (t *Target) probe(path peer.Path, media netip.AddrPort) turn.ProbeTarget {
	p := turn.ProbeTarget{Address: t.HTTPSAddress, Username: t.TURNUsername, Password: t.TURNPassword, Peer: media}
	switch path {
	case peer.TURNUDP:
		p.Network, p.Address = "udp", t.UDPAddress
	case peer.TURNTCP:
		p.Network = "tcp"
	default: // no ALPN, as browsers do
		p.Network = "tls"
		p.Dial = func(ctx context.Context) (net.Conn, error) { return t.dialTLS(ctx, nil) }
	}
	return p
}

// explainTURN says what an error of a probe means, by the step that failed.
func (t *Target) explainTURN(path peer.Path, p turn.ProbeTarget, got turn.ProbeResult, err error) result {
	text := err.Error()
	switch {
	case strings.Contains(text, unauthorized):
		return failed("TURN refuses the credentials: the running process has another secret").
			todo("reload Sallyport if turn.secret_file has changed; compare it with \"TURN Static Auth Secret\" of the Calls plugin; see host.clock")
	case strings.Contains(text, quotaReached):
		return failed("TURN is full").todo("raise turn.max_allocations; `sallyport status` shows how many there are")
	case got.Relayed.IsValid() && strings.Contains(text, forbidden):
		return failed("TURN refuses to relay to the media server at %s", p.Peer).
			todo("turn.relay_to must contain sfu; if %s is not its address, correct sfu.advertise", p.Peer)
	case path == peer.TURNUDP && (timeout(err) || strings.Contains(text, "refused") || strings.Contains(text, hungUp)):
		return failed("no answer from %s over UDP", p.Address).
			todo("open UDP port %s in every firewall on the way; if listen.udp or turn.enabled has changed, restart Sallyport", portOf(p.Address))
	case path == peer.TURNTLS && isTLS(err):
		return noHandshake(err, t)
	case strings.Contains(text, hungUp):
		return failed("%s takes the connection and closes it when TURN is spoken", p.Address).
			todo("restart Sallyport if turn.enabled has changed; is it Sallyport that listens there?")
	case got.Connect == 0 || timeout(err):
		return unreachable(err, p.Address, "listen.https")
	}
	return failed("TURN over %s: %v", p.Network, reason(err)).todo("look into Sallyport's log; is it Sallyport that listens on %s?", p.Address)
}

// checkClosedRelay asks the relay for what it must refuse: to reach somebody
// who is not the media server, and the machine it runs on.
func checkClosedRelay(ctx context.Context, t *Target) result {
	if r, off := t.noTURN(peer.TURNTCP); off {
		return r
	}
	media, err := t.mediaPeer(ctx)
	if err != nil {
		return unreachable(err, t.MediaUDP, "sfu.udp")
	}
	// A relay gives its permission for an address, whatever the port.
	strangers := slices.DeleteFunc(slices.Clone(strangers), func(a netip.AddrPort) bool {
		return a.Addr() == media.Addr() || t.relaysTo(a.Addr())
	})
	if len(strangers) == 0 {
		return skipped("turn.relay_to names every address that could be tried").todo("name media servers only: sfu, or host:port")
	}
	answers := make(chan result, len(strangers))
	for _, stranger := range strangers {
		go func() { answers <- t.mustRefuse(ctx, stranger) }()
	}
	verdict := passed("the relay refuses everybody but the media server")
	for range strangers {
		if r := <-answers; r.status != Pass {
			verdict = r
		}
	}
	return verdict
}

// strangers are who a relay must not reach. The first is a documentation
// address (RFC 5737): nobody has it, so no harm is done if we get through.
var strangers = []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:9"), netip.MustParseAddrPort("127.0.0.1:9")}

// relaysTo tells whether RelayTo names a, with any port.
func (t *Target) relaysTo(a netip.Addr) bool {
	return slices.ContainsFunc(t.RelayTo, func(entry string) bool {
		host, _, err := net.SplitHostPort(entry)
		if prefix, wide := netip.ParsePrefix(entry[:max(strings.LastIndexByte(entry, ':'), 0)]); wide == nil {
			return prefix.Contains(a)
		}
		ip, other := netip.ParseAddr(host)
		return err == nil && (other == nil && ip == a || host == "localhost" && a.IsLoopback())
	})
}

func (t *Target) mustRefuse(ctx context.Context, stranger netip.AddrPort) result {
	target := t.probe(peer.TURNTCP, stranger)
	res, err := turn.Probe(ctx, target)
	switch {
	case err != nil && res.Relayed.IsValid() && strings.Contains(err.Error(), forbidden):
		return passed("%s is refused", stranger)
	case res.Relayed.IsValid():
		return failed("the relay does not refuse %s: whoever has TURN credentials reaches what Sallyport reaches", stranger).
			todo("turn.relay_to: [sfu], or exactly the media servers it must reach")
	}
	r := t.explainTURN(peer.TURNTCP, target, res, err)
	return skipped("%s", r.text).todo("see turn.tcp")
}

// mediaPeer is the SFU's media socket as TURN clients name it; the zero
// AddrPort if there is none.
func (t *Target) mediaPeer(ctx context.Context) (netip.AddrPort, error) {
	if t.MediaUDP == "" {
		return netip.AddrPort{}, nil
	}
	host, port, err := net.SplitHostPort(t.MediaUDP)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("media address: %w", err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("media address: %w", err)
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		if host, _, err = net.SplitHostPort(t.HTTPSAddress); err != nil {
			return netip.AddrPort{}, fmt.Errorf("HTTPS address: %w", err)
		}
	}
	all, err := t.resolve(ctx, host)
	if err != nil {
		return netip.AddrPort{}, err
	}
	for _, a := range all {
		if a.Is4() { // what the SFU always has
			return netip.AddrPortFrom(a, uint16(n)), nil
		}
	}
	return netip.AddrPortFrom(all[0], uint16(n)), nil
}

func portOf(address string) string {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return port
}

func ms(d time.Duration) string {
	return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
}
