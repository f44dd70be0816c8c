package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/semver"
	"golang.org/x/sync/errgroup"

	"sallyport/sfu/peer"
)

// What the Calls plugin and its clients ask of the version of their rtcd.
const (
	leastVersion = "v1.1.0" // below it clients leave out the signalling lock
	goodVersion  = "v1.2.5" // below it Chromium 144 and Desktop 6.1 have trouble
)

const (
	// heard is how many packets each must get of the other: half a second.
	heard = 25
	// leaveLimit is how long a participant waits for the server to let it go.
	leaveLimit = 2 * time.Second
)

// checkRTCD asks the rtcd API for its version, as the plugin does first.
func checkRTCD(ctx context.Context, t *Target) result {
	if t.APIURL == "" {
		return skipped("there is no rtcd API: sfu.mode is not rtcd").todo("sfu.mode: rtcd serves calls")
	}
	c, done := direct()
	defer done()
	resp, body, err := get(ctx, c, t.APIURL+"/version")
	if err != nil {
		return unreachable(err, t.APIURL, "sfu.api.listen")
	}
	var v struct{ BuildVersion string }
	if resp.StatusCode != http.StatusOK || json.Unmarshal(body, &v) != nil {
		return failed("%s/version answers %s, and no version", t.APIURL, resp.Status).
			todo("sfu.api.listen leads to something that is not Sallyport; the plugin's \"RTCD service URL\" must lead to Sallyport")
	}
	version := v.BuildVersion
	if !strings.HasPrefix(version, "v") {
		version = "v" + version
	}
	const fix = "another rtcd listens there, or an old Sallyport: upgrade it"
	switch {
	case v.BuildVersion == "" || v.BuildVersion == "master" || strings.HasPrefix(v.BuildVersion, "dev"):
		return warned("the rtcd API is a development build, %q", v.BuildVersion).todo(fix)
	case !semver.IsValid(version) || semver.Compare(version, leastVersion) < 0:
		return failed("the rtcd API is %q: the Calls plugin wants %s or later", v.BuildVersion, leastVersion).todo(fix)
	case semver.Compare(version, goodVersion) < 0:
		return warned("the rtcd API is %s: new browsers want %s or later", v.BuildVersion, goodVersion).todo(fix)
	}
	return passed("the rtcd API is %s", v.BuildVersion)
}

// A way is how the two participants of a call reach the media server.
type way struct {
	peer.Path
	shared bool // on the UDP port that TURN has too
}

// checkCall makes a call of two participants over a path, in which each has to
// hear the other.
func checkCall(path peer.Path) func(context.Context, *Target) result {
	return checkWay(way{Path: path})
}

// checkSharedUDP is checkCall for those whose firewall lets out no UDP but to
// the port of listen.udp.
func checkSharedUDP(ctx context.Context, t *Target) result {
	return checkWay(way{Path: peer.UDP, shared: true})(ctx, t)
}

func checkWay(path way) func(context.Context, *Target) result {
	return func(ctx context.Context, t *Target) result {
		if r, off := t.noCall(path); off {
			return r
		}
		mux, done, err := t.link(ctx)
		if err != nil {
			return t.explainLink(err)
		}
		defer done()
		joined, r := t.converse(ctx, mux, path)
		for _, p := range joined {
			leave(ctx, p)
		}
		return r
	}
}

// link connects to the rtcd API as the plugin does. done closes it.
func (t *Target) link(ctx context.Context) (mux *peer.Mux, done func(), err error) {
	c, closeIdle := direct()
	mux, err = peer.DialMux(ctx, peer.LinkConfig{
		URL: t.APIURL, ClientID: t.ClientID, AuthKey: t.ClientKey, NoRegister: true, HTTPClient: c,
	})
	if err != nil {
		closeIdle()
		return nil, nil, err
	}
	return mux, func() { _ = mux.Close(); closeIdle() }, nil
}

// joinAlone lets one participant join over path, which takes ICE and DTLS both
// ways.
func (t *Target) joinAlone(ctx context.Context, mux *peer.Mux, path way) result {
	p, err := peer.Join(ctx, mux, t.participant(peer.NewID(), path))
	if err != nil {
		return t.explainCall(path, err)
	}
	defer leave(ctx, p)
	return passed("through it a participant joined in %s", ms(p.JoinTime()))
}

// noCall says why there can be no call over path, if so.
func (t *Target) noCall(path way) (r result, off bool) {
	switch {
	case t.APIURL == "":
		return skipped("there is no media server of ours: sfu.mode is not rtcd").todo("sfu.mode: rtcd serves calls"), true
	case t.ClientID == "":
		return skipped("no client of the rtcd API is known by its key").
			todo("sfu.api.clients names one; clients that registered themselves are known to the Calls plugin only"), true
	case path.Path == peer.TCP && t.MediaTCP == "":
		return skipped("sfu.tcp is off").todo("sfu.tcp: \":8443\" serves users without UDP"), true
	case path.shared && t.UDPAddress == "":
		return skipped("listen.udp is off").todo("listen.udp: \":443\" serves users whose firewall lets UDP 443 out only"), true
	case path.Path >= peer.TURNUDP:
		return t.noTURN(path.Path)
	}
	return result{}, false
}

func (t *Target) explainLink(err error) result {
	if strings.Contains(err.Error(), "401") {
		return failed("the rtcd API refuses the key of client %s", t.ClientID).
			todo("reload Sallyport if the file in sfu.api.clients has changed")
	}
	if errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "refused") {
		return skipped("the rtcd API does not answer").todo("see rtcd.version")
	}
	return failed("connect to the rtcd API: %v", reason(err)).todo("see rtcd.version, and look into Sallyport's log")
}

// converse lets two participants join and hear each other. It returns those who
// are still in the call.
func (t *Target) converse(ctx context.Context, mux *peer.Mux, path way) ([]*peer.Peer, result) {
	var pair [2]*peer.Peer
	joins, joinCtx := errgroup.WithContext(ctx)
	call := peer.NewID()
	for i := range pair {
		joins.Go(func() (err error) {
			pair[i], err = peer.Join(joinCtx, mux, t.participant(call, path))
			return err
		})
	}
	err := joins.Wait()
	var joined []*peer.Peer
	for _, p := range pair {
		if p != nil {
			joined = append(joined, p)
		}
	}
	if err != nil {
		return joined, t.explainCall(path, err)
	}
	hears, hearCtx := errgroup.WithContext(ctx)
	for i, p := range pair {
		hears.Go(func() error { return hear(hearCtx, p, pair[1-i]) })
	}
	if err := hears.Wait(); err != nil {
		return joined, failed("two participants joined, but no audio came: %v", reason(err)).
			todo("look into Sallyport's log; host.udp-buffers and the load of the machine matter")
	}
	taken, err := pair[0].Selected()
	if err != nil || taken.Path != path.Path {
		return joined, failed("the audio took another path: %s", taken).todo("look into Sallyport's log")
	}
	latency := pair[0].Tracks()[0].Stats().Latency
	return joined, passed("two participants heard each other via %s: joined in %s, audio under way for %s",
		taken.Remote, ms(pair[0].JoinTime()), ms(latency.Percentile(.5)))
}

// participant is one of the two; nothing it does is seen by others.
func (t *Target) participant(call string, path way) peer.Config {
	c := peer.Config{Call: call, Channel: call, Path: path.Path}
	switch path.Path {
	case peer.UDP, peer.TCP: // one open port must not hide that another is blocked
		if n, err := strconv.ParseUint(portOf(t.mediaPort(path)), 10, 16); err == nil {
			c.Port = uint16(n)
		}
	case peer.TURNUDP:
		c.ICEServers = t.iceServer("turn:" + t.UDPAddress + "?transport=udp")
	case peer.TURNTCP:
		c.ICEServers = t.iceServer("turn:" + t.HTTPSAddress + "?transport=tcp")
	case peer.TURNTLS:
		c.ICEServers = t.iceServer("turns:" + t.HTTPSAddress + "?transport=tcp")
		c.DialTURN = t.dialRelay
	}
	return c
}

// mediaPort is where direct media goes, host:port.
func (t *Target) mediaPort(path way) string {
	switch {
	case path.shared:
		return t.UDPAddress
	case path.Path == peer.TCP:
		return t.MediaTCP
	}
	return t.MediaUDP
}

func (t *Target) iceServer(url string) []peer.ICEServer {
	return []peer.ICEServer{{URLs: []string{url}, Username: t.TURNUsername, Credential: t.TURNPassword}}
}

// dialRelay is dialTLS for a connection that stays.
func (t *Target) dialRelay(_, _ string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), checkLimit)
	defer cancel()
	conn, err := t.dialTLS(ctx, nil)
	if err != nil {
		return nil, err
	}
	return conn, conn.SetDeadline(time.Time{})
}

// hear speaks, and returns when enough of what other says has come.
func hear(ctx context.Context, p, other *peer.Peer) error {
	if err := p.Unmute(ctx); err != nil {
		return err
	}
	track, err := p.WaitTrack(ctx, "voice", other.Session())
	if err != nil {
		return err
	}
	return track.WaitPackets(ctx, heard)
}

// leave takes a participant out of the call, in order if the server confirms.
func leave(ctx context.Context, p *peer.Peer) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveLimit)
	defer cancel()
	_ = p.Leave(ctx) // a server that does not confirm notices by itself
}

// explainCall says why two participants did not get into the call.
func (t *Target) explainCall(path way, err error) result {
	switch {
	case errors.Is(err, peer.ErrNoRelay):
		return failed("no call over %s: TURN gives no relay address", path).todo("see turn.udp, turn.tcp and turn.tls")
	case errors.Is(err, peer.ErrEnded):
		return failed("no call over %s: the server ended it", path).todo("a draining Sallyport refuses calls: see process.ready and its log")
	case timeout(err) && path.shared:
		return failed("no call over udp on the port of TURN: no media connection").
			todo("open UDP %s, listen.udp; the addresses that Sallyport tells must be reachable from here: sfu.advertise", portOf(t.UDPAddress))
	case timeout(err) && path.Path == peer.UDP:
		return failed("no call over udp: no media connection").
			todo("open UDP %s, sfu.udp; the addresses that Sallyport tells must be reachable from here: sfu.advertise", portOf(t.MediaUDP))
	case timeout(err) && path.Path == peer.TCP:
		return failed("no call over tcp: no media connection").
			todo("open TCP %s, sfu.tcp; the addresses that Sallyport tells must be reachable from here: sfu.advertise", portOf(t.MediaTCP))
	case timeout(err):
		return failed("the relay works, but the media server does not answer through it").
			todo("turn.relay_to must contain sfu, and the addresses that Sallyport tells must be the media server's: sfu.advertise")
	}
	return failed("no call over %s: %v", path, reason(err)).todo("look into Sallyport's log")
}
