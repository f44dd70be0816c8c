package conformance

import (
	"maps"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/ice/v2"
	"github.com/pion/interceptor"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v3"

	"sallyport/sfu/wire"
)

const (
	extAudioLevel = "urn:ietf:params:rtp-hdrext:ssrc-audio-level"
	extMid        = "urn:ietf:params:rtp-hdrext:sdes:mid"
	extRID        = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id"
)

// options are what is special about a guest.
type options struct {
	dc      bool // wants the server's offers on the data channel
	av1     bool
	tcp     bool   // ICE-TCP only
	noLevel bool   // no audio level extension
	twcc    bool   // sends transport-wide feedback
	session string // "" = a new one
	relay   *relay // in between; nil = none
	// keeps says which candidates of the server the guest gets to see; nil = all.
	keeps func(candidate string) bool
}

// A guest is a participant: a WebRTC client that signals through a plugin, and
// answers what it is offered unless it is told not to.
type guest struct {
	t  testing.TB
	p  *plugin
	j  wire.Join
	o  options
	pc *webrtc.PeerConnection
	dc *webrtc.DataChannel

	answers chan wire.Description // to its own offers
	locks   chan bool             // answers to its lock requests
	opened  chan struct{}         // closed when the data channel is open
	ending  atomic.Bool
	turn    sync.Mutex // one description at a time is applied
	applied int        // offers of the server, guarded by turn

	mu      sync.Mutex // guards the following
	offers  []offer
	silent  bool // answers no offer
	media   map[string]wire.Media
	maps    int      // media maps received
	heard   []*heard // tracks, in the order of their first packet
	raw     [][]byte // binary messages of the data channel
	texts   []string
	pending []webrtc.ICECandidateInit
	remote  bool // has a remote description
}

// An offer of the server, as it arrived.
type offer struct {
	at    time.Time
	sdp   string
	dc    bool                  // came on the data channel
	media map[string]wire.Media // the last map at that moment
}

// heard is a track that a guest receives.
type heard struct {
	id, stream, mid, mime string
	ssrc                  webrtc.SSRC
	extensions            map[uint8]string // negotiated header extensions by ID

	mu      sync.Mutex // guards the following
	packets []packet
}

// A packet is what is kept of a received one.
type packet struct {
	at   time.Time
	head rtp.Header
	tag  byte // last byte of the payload
	key  bool // begins a VP8 key frame
	size int
}

// enter makes a guest and brings it into a call, its data channel open.
func enter(t testing.TB, p *plugin, call string, o options) *guest {
	t.Helper()
	g := newGuest(t, p, call, o)
	g.knock()
	g.arrive()
	return g
}

// newGuest makes a guest that has done nothing yet.
func newGuest(t testing.TB, p *plugin, call string, o options) *guest {
	t.Helper()
	g := &guest{
		t: t, p: p, o: o, j: newJoin(call),
		answers: make(chan wire.Description, 16), locks: make(chan bool, 64), opened: make(chan struct{}),
	}
	if o.session != "" {
		g.j.Session = o.session
	}
	g.j.AV1, g.j.DCSignaling = o.av1, o.dc
	var err error
	if g.pc, err = newAPI(t, o).NewPeerConnection(webrtc.Configuration{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.close)
	g.pc.OnTrack(g.onTrack)
	if g.dc, err = g.pc.CreateDataChannel("calls-dc", nil); err != nil {
		t.Fatal(err)
	}
	g.dc.OnOpen(func() { close(g.opened) })
	g.dc.OnMessage(g.onMessage)
	p.listen(g.j.Session, g.onFrame)
	return g
}

func newAPI(t testing.TB, o options) *webrtc.API {
	t.Helper()
	var m webrtc.MediaEngine
	chain := &interceptor.Registry{}
	must(t, registerCodecs(&m, o))
	if o.twcc {
		must(t, webrtc.ConfigureTWCCSender(&m, chain))
		must(t, webrtc.ConfigureRTCPReports(chain))
	}
	var e webrtc.SettingEngine
	e.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	if shared.target == "" {
		e.SetIncludeLoopbackCandidate(true)
		e.SetInterfaceFilter(func(n string) bool { return n == "lo" })
	}
	e.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	if o.tcp {
		e.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeTCP4})
	}
	e.SetDTLSRetransmissionInterval(100 * time.Millisecond)
	e.SetSRTPReplayProtectionWindow(1024)
	return webrtc.NewAPI(webrtc.WithMediaEngine(&m), webrtc.WithSettingEngine(e), webrtc.WithInterceptorRegistry(chain))
}

// registerCodecs registers what browsers use in a call.
func registerCodecs(m *webrtc.MediaEngine, o options) error {
	video := []webrtc.RTCPFeedback{{Type: "goog-remb"}, {Type: "ccm", Parameter: "fir"}, {Type: "nack"}, {Type: "nack", Parameter: "pli"}}
	for _, c := range []webrtc.RTPCodecParameters{
		{PayloadType: 111, RTPCodecCapability: webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2, SDPFmtpLine: "minptime=10;useinbandfec=1"}},
		{PayloadType: 96, RTPCodecCapability: webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP8, ClockRate: 90000, RTCPFeedback: video}},
		{PayloadType: 45, RTPCodecCapability: webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeAV1, ClockRate: 90000, RTCPFeedback: video}},
	} {
		kind := webrtc.RTPCodecTypeVideo
		if c.MimeType == webrtc.MimeTypeOpus {
			kind = webrtc.RTPCodecTypeAudio
		}
		if err := m.RegisterCodec(c, kind); err != nil {
			return err
		}
	}
	if !o.noLevel {
		if err := m.RegisterHeaderExtension(webrtc.RTPHeaderExtensionCapability{URI: extAudioLevel}, webrtc.RTPCodecTypeAudio); err != nil {
			return err
		}
	}
	for _, uri := range []string{extMid, extRID} {
		if err := m.RegisterHeaderExtension(webrtc.RTPHeaderExtensionCapability{URI: uri}, webrtc.RTPCodecTypeVideo); err != nil {
			return err
		}
	}
	return nil
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// knock joins the call and sends the first offer: the data channel alone.
func (g *guest) knock() {
	g.t.Helper()
	g.p.join(g.j)
	g.p.rtc(g.j.Session, wire.KindSDP, wire.EncodeDescription(g.firstOffer()))
}

// firstOffer makes the first offer, with the guest's candidates in it.
func (g *guest) firstOffer() wire.Description {
	g.t.Helper()
	d, err := g.pc.CreateOffer(nil)
	must(g.t, err)
	gathered := webrtc.GatheringCompletePromise(g.pc)
	must(g.t, g.pc.SetLocalDescription(d))
	<-gathered
	d = *g.pc.LocalDescription()
	if g.o.relay != nil { // no road around it
		d.SDP = mapCandidates(d.SDP, func(string) string { return "" })
		g.o.relay.keys.Store(&iceKeys{client: keyOf(d.SDP)})
	}
	return wire.Description{Type: "offer", SDP: d.SDP}
}

// arrive takes the first answer and waits for the data channel.
func (g *guest) arrive() {
	g.t.Helper()
	g.accept(g.answer())
	select {
	case <-g.opened:
	case <-time.After(patience):
		g.t.Fatalf("the data channel does not open; the connection is %s, ICE %s", g.pc.ConnectionState(), g.pc.ICEConnectionState())
	}
}

// answer waits for the answer to the guest's own offer.
func (g *guest) answer() wire.Description {
	g.t.Helper()
	select {
	case d := <-g.answers:
		return d
	case <-time.After(patience):
		g.t.Fatal("no answer to an offer")
		panic("unreachable")
	}
}

// accept applies an answer.
func (g *guest) accept(d wire.Description) {
	g.t.Helper()
	g.turn.Lock()
	defer g.turn.Unlock()
	g.take(d)
}

// acceptUnless is accept for an offer of ours that was not applied yet, unless
// meanwhile one of the server's was, since when it describes what is no more.
func (g *guest) acceptUnless(applied int, offer webrtc.SessionDescription, answer wire.Description) bool {
	g.t.Helper()
	g.turn.Lock()
	defer g.turn.Unlock()
	if g.applied != applied || g.pc.SetLocalDescription(offer) != nil {
		return false
	}
	g.take(answer)
	return true
}

// take applies an answer for who has turn.
func (g *guest) take(d wire.Description) {
	g.t.Helper()
	must(g.t, g.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: g.visible(d.SDP)}))
	g.mu.Lock()
	defer g.mu.Unlock()
	g.remote = true
	for _, c := range g.pending {
		_ = g.pc.AddICECandidate(c)
	}
	g.pending = nil
}

// visible leaves in a description the candidates that the guest may see.
func (g *guest) visible(sdp string) string {
	if g.o.relay != nil {
		g.o.relay.keys.Store(&iceKeys{client: g.o.relay.keys.Load().client, server: keyOf(sdp)})
	}
	return mapCandidates(sdp, g.see)
}

// see returns the candidate as the guest gets to see it, "" for not at all.
func (g *guest) see(candidate string) string {
	if g.o.keeps != nil && !g.o.keeps(candidate) {
		return ""
	}
	if g.o.relay != nil {
		return g.o.relay.instead(candidate)
	}
	return candidate
}

// mapCandidates replaces the candidates in a description.
func mapCandidates(sdp string, to func(string) string) string {
	var b strings.Builder
	for line := range strings.Lines(sdp) {
		if c, ok := strings.CutPrefix(strings.TrimSpace(line), "a=candidate:"); ok {
			if c = to("candidate:" + c); c != "" {
				b.WriteString("a=" + c + "\r\n")
			}
			continue
		}
		b.WriteString(line)
	}
	return b.String()
}

// attribute returns the value of the first such attribute of a description.
func attribute(sdp, name string) string {
	for line := range strings.Lines(sdp) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "a="+name+":"); ok {
			return v
		}
	}
	return ""
}

// endpoint returns protocol and address of a candidate.
func endpoint(candidate string) (protocol string, addr netip.AddrPort) {
	f := strings.Fields(candidate)
	if len(f) < 8 {
		return "", addr
	}
	addr, _ = netip.ParseAddrPort(f[4] + ":" + f[5])
	return strings.ToLower(f[2]), addr
}

// onFrame takes what the server says over the WebSocket.
func (g *guest) onFrame(f frame) {
	if f.Type != wire.TypeRTC {
		return
	}
	switch f.Message.Kind {
	case wire.KindSDP:
		d, err := wire.DecodeDescription(f.Message.Data)
		if err != nil {
			g.complain("description", err)
			return
		}
		g.described(d, false)
	case wire.KindICE:
		c, err := wire.DecodeCandidate(f.Message.Data)
		if err != nil {
			g.complain("candidate", err)
			return
		}
		g.candidate(c)
	}
}

func (g *guest) candidate(c wire.Candidate) {
	seen := g.see(c.Candidate)
	if seen == "" {
		return
	}
	init := webrtc.ICECandidateInit{Candidate: seen, SDPMid: c.SDPMid, SDPMLineIndex: c.SDPMLineIndex}
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.remote {
		g.pending = append(g.pending, init)
		return
	}
	_ = g.pc.AddICECandidate(init)
}

// onMessage takes what the server says on the data channel.
func (g *guest) onMessage(m webrtc.DataChannelMessage) {
	if m.IsString {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.texts = append(g.texts, string(m.Data))
		return
	}
	g.mu.Lock()
	g.raw = append(g.raw, m.Data)
	g.mu.Unlock()
	msg, err := wire.DecodeChannel(m.Data)
	if err != nil {
		g.complain("data channel message", err)
		return
	}
	switch msg.Type {
	case wire.ChannelSDP:
		g.described(msg.SDP, true)
	case wire.ChannelLock:
		if msg.Granted == nil {
			g.t.Error("the server requests a lock")
			return
		}
		g.locks <- *msg.Granted
	case wire.ChannelMap:
		g.mu.Lock()
		defer g.mu.Unlock()
		g.media = msg.Media
		g.maps++
	}
}

// described takes an offer or answer of the server.
func (g *guest) described(d wire.Description, dc bool) {
	if d.Type == "answer" {
		g.answers <- d
		return
	}
	g.mu.Lock()
	g.offers = append(g.offers, offer{time.Now(), d.SDP, dc, maps.Clone(g.media)})
	silent := g.silent
	g.mu.Unlock()
	if !silent {
		go g.reply(d.SDP)
	}
}

// reply answers an offer of the server.
func (g *guest) reply(sdp string) {
	g.turn.Lock()
	defer g.turn.Unlock()
	if err := g.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: g.visible(sdp)}); err != nil {
		g.complain("offer", err)
		return
	}
	a, err := g.pc.CreateAnswer(nil)
	if err == nil {
		err = g.pc.SetLocalDescription(a)
	}
	if err != nil {
		g.complain("offer", err)
		return
	}
	g.applied++
	g.describe(wire.Description{Type: "answer", SDP: a.SDP})
}

// describe sends a description on the road that the guest uses.
func (g *guest) describe(d wire.Description) {
	if g.o.relay != nil {
		d.SDP = mapCandidates(d.SDP, func(string) string { return "" })
	}
	if g.o.dc {
		g.tell(wire.ChannelMessage{Type: wire.ChannelSDP, SDP: d})
		return
	}
	g.p.rtc(g.j.Session, wire.KindSDP, wire.EncodeDescription(d))
}

// tell sends a message on the data channel.
func (g *guest) tell(m wire.ChannelMessage) {
	b, err := m.Append(nil)
	if err == nil {
		err = g.dc.Send(b)
	}
	if err != nil {
		g.complain("message to the server", err)
	}
}

func (g *guest) complain(what string, err error) {
	if !g.ending.Load() {
		g.t.Errorf("%s: %v", what, err)
	}
}

// onTrack reads a track to its end.
func (g *guest) onTrack(tr *webrtc.TrackRemote, r *webrtc.RTPReceiver) {
	h := &heard{id: tr.ID(), stream: tr.StreamID(), mid: r.RTPTransceiver().Mid(), mime: tr.Codec().MimeType, ssrc: tr.SSRC(), extensions: map[uint8]string{}}
	for _, e := range r.GetParameters().HeaderExtensions {
		h.extensions[uint8(e.ID)] = e.URI
	}
	g.mu.Lock()
	g.heard = append(g.heard, h)
	g.mu.Unlock()
	for {
		p, _, err := tr.ReadRTP()
		if err != nil {
			return
		}
		k := packet{at: time.Now(), head: p.Header.Clone(), size: len(p.Payload), key: startsKeyframe(p.Payload)}
		if len(p.Payload) > 0 {
			k.tag = p.Payload[len(p.Payload)-1]
		}
		h.mu.Lock()
		h.packets = append(h.packets, k)
		h.mu.Unlock()
	}
}
