package sfu

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/pion/stun"
	"github.com/pion/webrtc/v3"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"sallyport/sfu/internal/loudest"
	"sallyport/sfu/internal/srtp"
)

// A speaker is a participant whose packets come through the media sockets; of the
// rest of it there is only what the packets' way needs.
type speaker struct {
	srv    *Server
	media  *media
	up     *up
	seal   *srtp.Sealer
	conn   *net.UDPConn
	from   netip.AddrPort // of conn
	reader *reader
	seq    uint16
	bare   bool // without levels
	buf    []byte
	body   []byte
}

// newSpeaker makes one who publishes an announced track of a class.
func newSpeaker(t testing.TB, srv *Server, profile srtp.Profile, class string) *speaker {
	t.Helper()
	name := "speaker" + rand.Text()
	l := addLeg(t, srv, profile, name)
	s := &speaker{srv: srv, media: l.media, conn: l.conn, from: localAddrPort(l.conn.LocalAddr()), reader: srv.mux.newReader(), buf: make([]byte, 0, maxDatagram), body: make([]byte, 80)}
	s.media.in = l.keys // what it sends with: the test plays both ends
	var err error
	if s.seal, err = l.keys.Sealer(1, 0); err != nil {
		t.Fatal(err)
	}
	s.up = &up{session: l.media.session, level: 1}
	s.up.class.Store(&upClass{class: class, took: srv.metrics.writes.WithLabelValues("g", class)})
	s.up.on.Store(true)
	s.media.sources[1] = &incoming{opener: l.keys.Opener(1), up: s.up}
	s.media.sources[1].stats.Rate, s.media.sources[1].line.Rate = 48000, 48000
	srv.mux.tap(name, s.media)
	return s
}

// says hands packets to the mux, each a read batch of its own.
func (s *speaker) says(t testing.TB, packets int) {
	for range packets {
		s.srv.mux.deliver(s.reader, s.srv.mux.sockets[0], s.next(t), s.from)
		s.reader.finish()
	}
}

// next makes the next packet, encrypted.
func (s *speaker) next(t testing.TB) []byte {
	s.seq++
	h := append(s.buf[:0], 0x90, 111, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xBE, 0xDE, 0, 1, 0x10, 0x85, 0, 0)
	if s.bare {
		h = append(s.buf[:0], 0x80, 111, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1)
	}
	binary.BigEndian.PutUint16(h[2:], s.seq)
	binary.BigEndian.PutUint32(h[4:], 960*uint32(s.seq))
	binary.BigEndian.PutUint16(s.body[len(s.body)-2:], s.seq)
	p, err := s.seal.Seal(h, s.body)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// hears makes the leg a receiver of the speaker.
func (l *leg) hears(s *speaker, ssrc uint32) *down {
	l.t.Helper()
	d := &down{up: s.up, session: l.media.session, lost: l.srv.metrics.errors.WithLabelValues("g", "rtp")}
	d.bound.Store(l.stream(&outgoing{ssrc: ssrc, kind: 111, level: 3}))
	s.up.fan.add(d)
	return d
}

// TestTheWayOfAPacket: from an encrypted packet at the socket to encrypted packets
// at the receivers' sockets, with the level and under the receiver's numbers, and
// without a heap allocation.
func TestTheWayOfAPacket(t *testing.T) {
	for _, profile := range []srtp.Profile{srtp.AEADAES128GCM, srtp.AES128CMSHA1x80} {
		t.Run(fmt.Sprint(profile), func(t *testing.T) {
			first := newLeg(t, profile)
			s := newSpeaker(t, first.srv, profile, classVoice)
			legs := []*leg{first}
			for i := range 4 {
				legs = append(legs, addLeg(t, first.srv, profile, fmt.Sprint("receiver", i)))
			}
			for i, l := range legs {
				l.hears(s, uint32(100+i))
			}
			s.says(t, 3)
			for i, l := range legs {
				for seq := uint16(1); seq <= 3; seq++ {
					p, ok := l.next()
					level := p.Extension(3)
					if !ok || p.SSRC != uint32(100+i) || p.Type != 111 || p.Seq != seq || p.Time != 960*uint32(seq) || len(p.Payload) != 80 || len(level) != 1 || level[0] != 0x85 {
						t.Fatalf("receiver %d got %+v, %v", i, p, ok)
					}
				}
			}
			if a := testing.AllocsPerRun(500, func() { s.says(t, 1) }); a != 0 {
				t.Errorf("%v allocations to take a packet and send it to 5 receivers", a)
			}
		})
	}
}

// TestLevelsAreThePublishers: sound of a screen has its own like a voice, and who
// sends none is not made the loudest.
func TestLevelsAreThePublishers(t *testing.T) {
	for _, class := range []string{classVoice, classScreenAudio} {
		l := newLeg(t, srtp.AEADAES128GCM)
		s := newSpeaker(t, l.srv, srtp.AEADAES128GCM, class)
		l.hears(s, 100)
		for _, bare := range []bool{false, true} {
			s.bare = bare
			s.says(t, 1)
			p, ok := l.next()
			level := p.Extension(3)
			if said := len(level) == 1 && level[0] == 0x85; !ok || said == bare || bare && level != nil {
				t.Errorf("%s, sent without a level %v: got %x in %+v, %v", class, bare, level, p, ok)
			}
		}
	}
}

// What is not authentic, or came before, goes nowhere.
func TestForgeriesAndReplaysAreDropped(t *testing.T) {
	l := newLeg(t, srtp.AEADAES128GCM)
	s := newSpeaker(t, l.srv, srtp.AEADAES128GCM, classVoice)
	l.hears(s, 100)
	s.says(t, 1)
	if got := l.all(); len(got) != 1 {
		t.Fatalf("%d packets, want 1", len(got))
	}
	h := []byte{0x80, 111, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1}
	for _, p := range [][]byte{append(h, make([]byte, 40)...), h, {0x80, 111}} {
		s.srv.mux.deliver(s.reader, s.srv.mux.sockets[0], p, s.from)
		s.reader.finish()
	}
	other, err := s.media.in.Sealer(2, 0) // an SSRC nobody has announced
	if err != nil {
		t.Fatal(err)
	}
	p, err := other.Seal([]byte{0x80, 111, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2}, []byte{1})
	if err != nil {
		t.Fatal(err)
	}
	s.srv.mux.deliver(s.reader, s.srv.mux.sockets[0], p, s.from)
	s.reader.finish()
	if got := l.all(); len(got) != 0 {
		t.Errorf("%d packets went out", len(got))
	}
	if n := len(s.media.sources); n != 2 {
		t.Errorf("%d sources are remembered, want that of the track and the authentic one", n)
	}
}

// TestAMutedVoiceIsNotForwarded: from the mute on, and again after.
func TestAMutedVoiceIsNotForwarded(t *testing.T) {
	l := newLeg(t, srtp.AEADAES128GCM)
	s := newSpeaker(t, l.srv, srtp.AEADAES128GCM, classVoice)
	l.hears(s, 100)
	for i, on := range []bool{true, false, true} {
		s.up.on.Store(on)
		s.says(t, 2)
		if got := len(l.all()); (got == 2) != on || got != 0 && !on {
			t.Errorf("step %d: %d packets", i, got)
		}
	}
}

// TestOnlyTheLoudestAreHeard: with one place in the call the second speaker waits
// until it is free, and has no gap in its numbers then.
func TestOnlyTheLoudestAreHeard(t *testing.T) {
	l := newLeg(t, srtp.AEADAES128GCM)
	first := newSpeaker(t, l.srv, srtp.AEADAES128GCM, classVoice)
	second := newSpeaker(t, l.srv, srtp.AEADAES128GCM, classVoice)
	place := loudest.New(1)
	for i, s := range []*speaker{first, second} {
		c := *s.up.class.Load()
		c.voice = place.Join()
		s.up.class.Store(&c)
		l.hears(s, uint32(100+i))
	}
	expect := func(ssrc uint32, seqs ...uint16) {
		t.Helper()
		for _, seq := range seqs {
			if p, ok := l.next(); !ok || p.SSRC != ssrc || p.Seq != seq {
				t.Fatalf("packet %d of %d, %v; want %d of %d", p.Seq, p.SSRC, ok, seq, ssrc)
			}
		}
		if p, ok := l.next(); ok {
			t.Fatalf("packet %d of %d is too much", p.Seq, p.SSRC)
		}
	}
	first.says(t, 2)
	second.says(t, 5) // at once: who says nothing for long loses its place
	expect(100, 1, 2)
	first.up.class.Load().voice.Leave()
	second.says(t, 2)
	expect(101, 1, 2)
}

// TestFormerTracksAreForgotten: RTCP of a track that has just been removed may still
// come, of one that was removed a thousand tracks ago it does not.
func TestFormerTracksAreForgotten(t *testing.T) {
	m := newLeg(t, srtp.AEADAES128GCM).media
	const last = 10 * maxFormer
	for ssrc := uint32(1); ssrc <= last; ssrc++ {
		m.leaveUnread(ssrc)
		m.noLongerSent(ssrc)
		m.noLongerSent(last + ssrc) // of a video
	}
	if len(m.unread) != maxFormer || cap(m.former) > 4*maxFormer || !m.silent(last) || m.silent(1) {
		t.Errorf("%d SSRCs are remembered in %d places, the last %v, the first %v", len(m.unread), cap(m.former), m.silent(last), m.silent(1))
	}
}

// A speaker whose path changes is heard by two readers at a time: nothing is lost,
// and nothing is sent twice.
func TestTwoReadersAtATime(t *testing.T) {
	l := newLeg(t, srtp.AEADAES128GCM)
	s := newSpeaker(t, l.srv, srtp.AEADAES128GCM, classVoice)
	l.hears(s, 100)
	one, two := s.reader, s.srv.mux.newReader()
	for i := range 4 {
		s.seq++
		h := append(make([]byte, 0, maxDatagram), 0x80, 111, 0, byte(s.seq), 0, 0, 0, 0, 0, 0, 0, 1)
		p, err := s.seal.Seal(h, []byte{byte(s.seq)})
		if err != nil {
			t.Fatal(err)
		}
		r := one
		if i%2 == 1 {
			r = two
		}
		s.srv.mux.deliver(r, s.srv.mux.sockets[0], p, s.from)
	}
	one.finish()
	two.finish()
	if got := l.all(); len(got) != 4 {
		t.Errorf("%d packets, want 4", len(got))
	}
}

// TestOthersAreNotHeldUp: one receiver has gone, one has no way, one vanishes
// while packets are sent, the buffers of two are full, one of them behind TCP; the
// other gets everything at once.
func TestOthersAreNotHeldUp(t *testing.T) {
	good := newLeg(t, srtp.AEADAES128GCM)
	s := newSpeaker(t, good.srv, srtp.AEADAES128GCM, classVoice)
	s.body = make([]byte, 1000)
	gone := addLeg(t, good.srv, srtp.AEADAES128GCM, "gone")
	lost := addLeg(t, good.srv, srtp.AEADAES128GCM, "lost")
	full := addLeg(t, good.srv, srtp.AEADAES128GCM, "full")
	slow := addLeg(t, good.srv, srtp.AEADAES128GCM, "slow")
	if err := full.conn.SetReadBuffer(1); err != nil {
		t.Fatal(err)
	}
	slow.overTCP("slow", 1)
	for i, l := range []*leg{gone, lost, full, slow, good} {
		l.hears(s, uint32(100+i))
	}
	s.says(t, 10)
	_ = gone.conn.Close() // the kernel answers for it that nobody is there
	lost.media.way.Store(nil)
	var took []time.Duration
	got := len(good.all())
	for i := range 40 { // in parts that fit into the socket of the test
		if i == 20 {
			full.media.close() // in the middle of it
		}
		begin := time.Now()
		s.says(t, 50)
		took = append(took, time.Since(begin))
		got += len(good.all())
	}
	if want := 10 + 40*50; got != want {
		t.Errorf("%d of %d packets", got, want)
	}
	if counted(t, good.srv.metrics.drops.WithLabelValues("tcp_slow")) == 0 {
		t.Error("the TCP connection was not slow")
	}
	slices.Sort(took)
	if half := took[len(took)/2]; half > 50*time.Millisecond {
		t.Errorf("50 packets took %v", half)
	}
}

// A path that ICE chooses before the sockets have seen a datagram of it is found
// with the next reports.
func TestAPathThatIsKnownLater(t *testing.T) {
	l := newLeg(t, srtp.AEADAES128GCM)
	at := l.srv.mux.sockets[0].local
	l.media.listen("leg")
	elsewhere := netip.MustParseAddrPort("127.0.0.1:9")
	candidate := func(a netip.AddrPort) *webrtc.ICECandidate {
		return &webrtc.ICECandidate{Protocol: webrtc.ICEProtocolUDP, Address: a.Addr().String(), Port: a.Port()}
	}
	l.media.selected(webrtc.NewICECandidatePair(candidate(at), candidate(elsewhere)))
	if w := l.media.way.Load(); w != nil {
		t.Fatalf("a way to where nothing came from: %v", w)
	}
	agent, err := l.srv.mux.GetConn("leg", net.UDPAddrFromAddrPort(at))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := agent.WriteTo([]byte{1}, net.UDPAddrFromAddrPort(elsewhere)); err != nil {
		t.Fatal(err)
	}
	l.media.report(time.Now())
	if w := l.media.way.Load(); w == nil || w.remote != elsewhere {
		t.Errorf("way %v, want to %v", w, elsewhere)
	}
}

// overTCP gives the leg another way: a TCP connection, which it returns. room is the
// size of its buffer, 0 = as usual.
func (l *leg) overTCP(ufrag string, room int) *net.TCPConn {
	l.t.Helper()
	listener := l.srv.tcp.listeners[0]
	go l.srv.tcp.accept(listener)
	l.t.Cleanup(func() { _ = l.srv.tcp.Close() })
	local := localAddrPort(listener.Addr())
	if _, err := l.srv.tcp.GetAllConns(ufrag, false, local.Addr().AsSlice()); err != nil {
		l.t.Fatal(err)
	}
	conn, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(local))
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = conn.Close() })
	if room > 0 {
		_ = conn.SetReadBuffer(room)
	}
	check := stun.MustBuild(stun.BindingRequest, stun.TransactionID, stun.NewUsername(ufrag+":x")).Raw
	if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(check))), check...)); err != nil {
		l.t.Fatal(err)
	}
	until(l.t, "the TCP connection to be known", func() bool {
		w := l.srv.mux.way(ufrag, local, localAddrPort(conn.LocalAddr()), true)
		l.media.way.Store(w)
		return w != nil
	})
	return conn
}

// BenchmarkForward takes a packet and sends it to 50 receivers, over sockets.
func BenchmarkForward(b *testing.B) {
	for _, profile := range []srtp.Profile{srtp.AEADAES128GCM, srtp.AES128CMSHA1x80} {
		b.Run(fmt.Sprint(profile), func(b *testing.B) {
			first := newLeg(b, profile)
			s := newSpeaker(b, first.srv, profile, classVoice)
			first.hears(s, 100)
			for i := range 49 {
				addLeg(b, first.srv, profile, fmt.Sprint("receiver", i)).hears(s, 100)
			}
			b.ReportAllocs()
			for b.Loop() {
				s.says(b, 1)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(50*b.N), "ns/packet")
		})
	}
}

func counted(t *testing.T, c prometheus.Counter) float64 {
	t.Helper()
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetCounter().GetValue()
}
