package gateway_test

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/coder/websocket"

	"sallyport/sfu/peer"
)

// on makes a network of a server of its own, with the call of n.
func (n *network) on(s *site) *network {
	inner := *n
	inner.product = s.product
	inner.t, inner.call = n.t, n.call
	return &inner
}

// scenes are those that need a router, and more than a door in it.
func (n *network) scenes(t *testing.T) {
	n.scene(t, "IPv6 only", (*network).sixOnly)
	n.scene(t, "a server in a container", func(n *network) { n.container("") })
	n.scene(t, "a server behind NAT", func(n *network) { n.container(public + "/" + private) })
	n.scene(t, "NAT that forgets", (*network).forgetful)
	n.scene(t, "500 behind one address", (*network).office)
}

// sixOnly: a client without IPv4 talks by way of TURN/TLS, to an SFU that has
// nothing but IPv4.
func (n *network) sixOnly() {
	t := n.t
	s, api := newSite(t, "addr add 10.77.2.1/32 dev lo")
	r := newRouter(t, nil, s.there, "meta nfproto ipv6 accept")
	s.serve(n.binary, s.there, layout{https: ":443", media: "10.77.2.1", api: api})
	n = n.on(s)
	n.HTTPS = netip.AddrPortFrom(r.server6, 443).String()
	cfg := n.participant(peer.TURNTLS)
	cfg.ICEServers[0].URLs = []string{"turns:10.77.2.1:443?transport=tcp"} // pion's client wants IPv4 here, and dials what it is told
	cfg.DialTURN = func(_, _ string) (net.Conn, error) { return dialTLS(t.Context(), r.client6.String(), n.HTTPS) }
	inside := n.admit(cfg)
	other := n.admit(cfg)
	n.converse(inside, other)
	pair := n.goes(inside, peer.TURNTLS)
	if !pair.Remote.Addr().Is4() {
		t.Errorf("media goes to %v, want IPv4", pair.Remote)
	}
	t.Log(pair)
}

// The addresses of a server behind NAT.
const (
	public  = "203.0.113.5"
	private = "172.17.0.2"
)

// toContainer is a router that hands what comes to the public address on to the
// private one, but not what comes from inside: it does no hairpin.
const toContainer = `ct state established,related accept
iifname "in" ip daddr ` + private + ` accept
}
chain nat {
type nat hook prerouting priority dstnat;
iifname "in" ip daddr ` + public + ` meta l4proto { tcp, udp } th dport { 443, 8443 } dnat ip to ` + private

// container: the server has an address that means nothing outside, as in a
// container. A relay reaches the SFU by whatever address it advertises, since the
// SFU is in the same process. Direct media needs the public address advertised.
func (n *network) container(advertise string) {
	t := n.t
	s, api := newSite(t, "addr add "+private+"/32 dev lo")
	r := newRouter(t, nil, s.there, toContainer)
	must(t, r.do(func() error {
		return ip("addr add "+public+"/32 dev lo", "route add "+private+" via "+r.server.String())
	}))
	s.serve(n.binary, s.there, layout{https: private + ":443", media: private, api: api, advertise: advertise})
	n = n.on(s)
	n.HTTPS, n.UDP = public+":443", public+":443"
	relayed, other := n.joinAt(r.client, peer.TURNTLS, peer.TURNTLS), n.joinAt(r.client, peer.TURNTLS, peer.TURNTLS)
	if advertise != "" {
		other = n.joinAt(r.client, peer.Auto, peer.UDP)
		t.Log(n.goes(other, peer.UDP, 443, 8443))
	}
	n.converse(relayed, other)
	pair := n.goes(relayed, peer.TURNTLS)
	if want := map[bool]string{true: private, false: public}[advertise == ""]; pair.Remote.Addr().String() != want {
		t.Errorf("media goes to %v, want %s", pair.Remote, want)
	}
	t.Log(pair)
}

// forgetful: NAT forgets a flow of UDP after 30 s of silence, one of TCP after 60 s,
// and lets nothing pass that it has forgotten. Nobody speaks for longer than that,
// and then both do; and a WebSocket carries its next message.
func (n *network) forgetful() {
	t := n.t
	r := newRouter(t, nil, n.there, `ct state invalid drop
`+masquerade)
	for name, value := range map[string]string{
		"nf_conntrack_udp_timeout": "30", "nf_conntrack_udp_timeout_stream": "30",
		"nf_conntrack_tcp_timeout_established": "60", "nf_conntrack_tcp_loose": "0",
	} {
		must(t, r.do(func() error { return os.WriteFile("/proc/sys/net/netfilter/"+name, []byte(value), 0o644) }))
	}
	direct := n.joinAt(r.client, peer.Auto, peer.UDP)
	relayed := n.joinAt(r.client, peer.TURNTLS, peer.TURNTLS)
	chat, err := n.socket(r.client)
	must(t, err)
	defer func() { _ = chat.CloseNow() }()
	before := [2]peer.Selected{n.goes(direct, peer.UDP), n.goes(relayed, peer.TURNTLS)}
	<-time.After(65 * time.Second)
	n.converse(direct, relayed)
	if after := [2]peer.Selected{n.goes(direct, peer.UDP), n.goes(relayed, peer.TURNTLS)}; before != after {
		t.Errorf("media went over %v, and goes over %v", before, after)
	}
	must(t, chat.Write(within(t), websocket.MessageText, []byte("still there?")))
	if _, said, err := chat.Read(within(t)); err != nil || string(said) != "still there?" {
		t.Errorf("the WebSocket says %q, %v", said, err)
	}
}

// socket opens a WebSocket of the page from an address.
func (n *network) socket(at netip.Addr) (*websocket.Conn, error) {
	transport := &http.Transport{DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return dialTLS(ctx, at.String(), n.HTTPS, "http/1.1")
	}}
	conn, _, err := websocket.Dial(within(n.t), "wss://"+n.HTTPS+"/api/v4/websocket", &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: transport},
	})
	return conn, err
}

// badLine: a line with which TCP has a hard time, since what it has lost holds up
// all the rest. It carries a voice, also beside a screen that does not fit: what is
// too late of that is dropped here and counted, and not kept.
func (n *network) badLine(at netip.Addr, path peer.Path, drops string) {
	t := n.t
	n.cable.ends[at].both(condition{loss: .02, delay: 150 * time.Millisecond, rate: 1_000_000, queue: 500 * time.Millisecond})
	var voice ears
	cfg := n.from(at, path, path)
	cfg.OnPacket = func(track *peer.Track, packet []byte) {
		if track.Type == "voice" {
			voice.packet(track.Sender, packet)
		}
	}
	inside, outside := n.admit(cfg), n.joinAt(nth(1), peer.UDP, peer.UDP)
	n.converse(inside, outside)
	listen := func(when string, most float64) {
		began := time.Now()
		<-time.After(8 * time.Second)
		heard := voice.since(began, outside.Session())
		t.Logf("%s: %v", when, heard)
		if heard.loss() > most || heard.packets == 0 {
			t.Errorf("%s: %v", when, heard)
		}
	}
	listen("voice alone", .1)
	before := n.resident()
	must(t, outside.ShareScreen(within(t), peer.Video{Bitrate: 3_000_000, FPS: 20}))
	listen("voice beside a screen", .2)
	dropped, err := n.metric(within(t), drops)
	grown := n.resident() - before
	t.Logf("%v packets dropped, %+d KiB", dropped, grown>>10)
	if err != nil || dropped == 0 || grown > 64<<20 {
		t.Errorf("%v packets dropped, %v; the product has grown by %d MiB", dropped, err, grown>>20)
	}
	must(t, outside.StopScreen(within(t)))
	listen("voice after the screen", .1)
	n.hears(outside, inside, 50)
	t.Log(n.goes(inside, path))
}
