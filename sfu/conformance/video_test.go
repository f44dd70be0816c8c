package conformance

import (
	"encoding/binary"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/pion/rtcp"
	"github.com/pion/webrtc/v3"

	"sallyport/sfu/wire"
)

// share makes g share a screen with sound, as the web client does.
func share(g *guest, stream string) (video, audio *source) {
	g.t.Helper()
	g.announce(wire.KindScreenOn, stream)
	video = g.publish(webrtc.MimeTypeVP8, stream)
	audio = g.publish(webrtc.MimeTypeOpus, stream)
	return video, audio
}

func TestConformance52Screen(t *testing.T) {
	conform(t, 52, brief, func(t testing.TB) {
		p := dial(t)
		for _, dc := range []bool{false, true} {
			a := enter(t, p, newID(), options{})
			b := enter(t, p, a.j.Call, options{dc: dc})
			a.publish(webrtc.MimeTypeOpus, "mic")
			share(a, "screen")
			b.hears("screen", a)
			b.hears("screen-audio", a)
			b.hears("voice", a)
			b.awaitSent("all of them", map[string]int{"voice": 1, "screen": 1, "screen-audio": 1})
			checkMaps(t, b)
		}
		// Audio first, then video.
		a := enter(t, p, newID(), options{})
		b := enter(t, p, a.j.Call, options{})
		a.announce(wire.KindScreenOn, "screen")
		a.publish(webrtc.MimeTypeOpus, "screen")
		a.publish(webrtc.MimeTypeVP8, "screen")
		b.hears("screen-audio", a)
		b.hears("screen", a)
	})
}

func TestConformance53SecondSharer(t *testing.T) {
	conform(t, 53, brief, func(t testing.TB) {
		p := dial(t)
		a, b := enter(t, p, newID(), options{}), (*guest)(nil)
		b = enter(t, p, a.j.Call, options{})
		c := enter(t, p, a.j.Call, options{})
		share(a, "screen")
		h := c.hears("screen", a)
		b.announce(wire.KindScreenOn, "other screen")
		b.publish(webrtc.MimeTypeVP8, "other screen")
		never(t, 2*time.Second, "the second screen is distributed", func() bool { return c.sent()["screen"] != 1 || a.sent()["screen"] != 0 })
		h.flows(c, 25)
	})
}

// awaitGone waits until g is sent nothing of a share any longer.
func awaitGone(t testing.TB, g *guest, lines ...string) {
	t.Helper()
	g.awaitSent("screen and its sound gone", map[string]int{})
	until(t, "inactive m-lines", func() bool {
		return !slices.ContainsFunc(lines, func(mid string) bool { return g.direction(mid) != "inactive" })
	})
}

func TestConformance54ScreenOff(t *testing.T) {
	conform(t, 54, brief, func(t testing.TB) {
		p := dial(t)
		a, b := enter(t, p, newID(), options{}), (*guest)(nil)
		b = enter(t, p, a.j.Call, options{})
		var last *heard
		for i, stream := range []string{"first", "second"} { // the m-lines are used again
			video, audio := share(a, stream)
			b.awaitSent("screen and its sound", map[string]int{"screen": 1, "screen-audio": 1})
			until(t, "packets of the new screen", func() bool {
				h := b.track("screen", a)
				return h != nil && h != last && h.count() > 5
			})
			last = b.track("screen", a)
			used := b.lines()
			if i == 0 { // the whole way of a web client; the second time screen_off alone
				video.unpublish()
				audio.unpublish()
			}
			a.rtc(wire.KindScreenOff)
			awaitGone(t, b, used...)
			checkMaps(t, b)
		}
	})
}

func TestConformance55SharerLeaves(t *testing.T) {
	conform(t, 55, brief, func(t testing.TB) {
		p := dial(t)
		a, b := enter(t, p, newID(), options{}), (*guest)(nil)
		b = enter(t, p, a.j.Call, options{})
		share(a, "screen")
		b.hears("screen", a)
		b.hears("screen-audio", a)
		used := b.lines()
		a.leave()
		awaitGone(t, b, used...)
		c := enter(t, p, b.j.Call, options{})
		share(c, "screen") // the share is free again
		b.hears("screen", c)
	})
}

func TestConformance56CameraBeforeItsAnnouncement(t *testing.T) {
	conform(t, 56, brief, func(t testing.TB) {
		p := dial(t)
		a, b := enter(t, p, newID(), options{}), (*guest)(nil)
		b = enter(t, p, a.j.Call, options{})
		s := a.publish(webrtc.MimeTypeVP8, "camera")
		first := s.when(0)
		never(t, time.Until(first.Add(2*time.Second)), "a camera is distributed before it is announced", func() bool { return len(b.sent()) > 0 })
		a.announce(wire.KindVideoOn, "camera")
		h := b.hears("video", a)
		if h.stream != a.j.Session || b.sent()["video"] != 1 {
			t.Errorf("stream %s, map %v", h.stream, b.sent())
		}
	})
}

func TestConformance57CameraOffAndOn(t *testing.T) {
	conform(t, 57, brief, func(t testing.TB) {
		p := dial(t)
		a, b := enter(t, p, newID(), options{}), (*guest)(nil)
		b = enter(t, p, a.j.Call, options{})
		a.announce(wire.KindVideoOn, "camera")
		s := a.publish(webrtc.MimeTypeVP8, "camera")
		h := b.hears("video", a)
		offers := b.offered()
		s.pause(true)
		a.rtc(wire.KindVideoOff)
		h.stops(b)
		a.announce(wire.KindVideoOn, "camera, once more")
		s.pause(false)
		h.flows(b, 50)
		if b.offered() != offers || b.track("video", a) != h {
			t.Errorf("%d offers for a camera that was off for a while", b.offered()-offers)
		}
	})
}

func TestConformance58UnannouncedVideo(t *testing.T) {
	conform(t, 58, brief, func(t testing.TB) {
		p := dial(t)
		a, b := enter(t, p, newID(), options{}), (*guest)(nil)
		b = enter(t, p, a.j.Call, options{})
		a.announce(wire.KindVideoOn, "another stream")
		s := a.publish(webrtc.MimeTypeVP8, "unannounced")
		s.when(50)
		a.publish(webrtc.MimeTypeOpus, "mic")
		b.hears("voice", a)
		late := enter(t, p, a.j.Call, options{})
		late.hears("voice", a)
		want := map[string]int{"voice": 1}
		never(t, 2*time.Second, "an unannounced track is distributed", func() bool { return !cmp.Equal(b.sent(), want) || !cmp.Equal(late.sent(), want) })
	})
}

func TestConformance59AV1AndVP8(t *testing.T) {
	conform(t, 59, brief, func(t testing.TB) {
		p := dial(t)
		for _, class := range []struct {
			name string
			kind wire.Kind
		}{{"screen", wire.KindScreenOn}, {"video", wire.KindVideoOn}} {
			a := enter(t, p, newID(), options{av1: true})
			plain := enter(t, p, a.j.Call, options{})
			modern := enter(t, p, a.j.Call, options{av1: true})
			a.announce(class.kind, "stream")
			a.publish(webrtc.MimeTypeVP8, "stream")
			if h := modern.hears(class.name, a); h.mime != webrtc.MimeTypeVP8 { // SHOULD: better than nothing
				t.Errorf("of VP8 alone %s was made", h.mime)
			}
			a.publish(webrtc.MimeTypeAV1, "stream")
			until(t, "AV1", func() bool {
				h := modern.track(class.name, a)
				return h != nil && h.mime == webrtc.MimeTypeAV1 && h.count() > 5
			})
			plain.hears(class.name, a).flows(plain, 25)
			late := enter(t, p, a.j.Call, options{av1: true})
			late.hears(class.name, a)
			for _, g := range []*guest{modern, late, plain} {
				want := webrtc.MimeTypeAV1
				if g == plain {
					want = webrtc.MimeTypeVP8
				}
				if h := g.track(class.name, a); h.mime != want || g.sent()[class.name] != 1 {
					t.Errorf("%s: the newest track is %s, want %s; map %v", class.name, h.mime, want, g.sent())
				}
			}
			for _, h := range modern.heard {
				if h.mime == webrtc.MimeTypeVP8 {
					h.stops(modern)
				}
			}
		}
	})
}

func TestConformance61KeyframeRequestsAreFew(t *testing.T) {
	conform(t, 61, brief, func(t testing.TB) {
		p := dial(t)
		a := enter(t, p, newID(), options{})
		begun := time.Now()
		a.announce(wire.KindVideoOn, "camera")
		s := a.publish(webrtc.MimeTypeVP8, "camera")
		var viewers []*guest
		var tracks []*heard
		for range 5 {
			v := enter(t, p, a.j.Call, options{})
			viewers, tracks = append(viewers, v), append(tracks, v.hears("video", a))
		}
		time.Sleep(1500 * time.Millisecond) // the requests for those who came are through
		plis := func() []time.Time { s.mu.Lock(); defer s.mu.Unlock(); return slices.Clone(s.plis) }
		before := len(plis())
		for round := range 3 {
			for i, v := range viewers {
				must(t, v.pc.WriteRTCP([]rtcp.Packet{&rtcp.PictureLossIndication{MediaSSRC: uint32(tracks[i].ssrc)}}))
			}
			if round == 0 {
				until(t, "request of a key frame", func() bool { return len(plis()) > before })
			}
		}
		time.Sleep(2500 * time.Millisecond)
		all := plis()
		// One each second leaves the server, which is not when they come.
		if took := time.Since(begun); len(all) > int(took/(900*time.Millisecond))+1 {
			t.Errorf("%d requests for a key frame within %s", len(all), took)
		}
		if n := len(all) - before; n < 1 || n > 3 {
			t.Errorf("%d requests for a key frame after 15 of receivers", n)
		}
	})
}

func TestConformance62LostVideoIsSentAgain(t *testing.T) {
	conform(t, 62, brief, func(t testing.TB) {
		p := dial(t)
		r := newRelay(t)
		var mu sync.Mutex
		lost := map[uint16]bool{}
		r.down = func(b []byte) []byte {
			if !isRTP(b) || len(b) < 60 {
				return b
			}
			seq := binary.BigEndian.Uint16(b[2:])
			mu.Lock()
			defer mu.Unlock()
			if seq%50 == 7 && !lost[seq] { // 2 %, the first time
				lost[seq] = true
				return nil
			}
			return b
		}
		a, b := enter(t, p, newID(), options{}), (*guest)(nil)
		a.announce(wire.KindVideoOn, "camera")
		a.publish(webrtc.MimeTypeVP8, "camera")
		b = enter(t, p, a.j.Call, options{relay: r})
		h := b.hears("video", a)
		asked := map[uint16]bool{}
		missing := func() []uint16 {
			seen := map[uint16]bool{}
			all := h.all()
			for _, x := range all {
				seen[x.head.SequenceNumber] = true
			}
			var out []uint16
			for seq := all[0].head.SequenceNumber; seq != all[len(all)-1].head.SequenceNumber; seq++ {
				if !seen[seq] {
					out = append(out, seq)
				}
			}
			return out
		}
		until(t, "six packets that were lost and came again", func() bool {
			gaps := missing()
			for _, seq := range gaps {
				asked[seq] = true
				nack := &rtcp.TransportLayerNack{MediaSSRC: uint32(h.ssrc), Nacks: []rtcp.NackPair{{PacketID: seq}}}
				must(t, b.pc.WriteRTCP([]rtcp.Packet{nack}))
			}
			time.Sleep(50 * time.Millisecond)
			return len(asked) >= 6 && len(missing()) == 0
		})
		// What came again is what was lost, not another packet of its number.
		for _, x := range h.all() {
			if x.tag != 'x' || x.size != 100 {
				t.Errorf("packet %d has %d bytes ending with %q", x.head.SequenceNumber, x.size, x.tag)
			}
		}
	})
}

func TestConformance63PacketsAreThePublishers(t *testing.T) {
	conform(t, 63, brief, func(t testing.TB) {
		p := dial(t)
		a, b := enter(t, p, newID(), options{}), (*guest)(nil)
		b = enter(t, p, a.j.Call, options{twcc: true})
		a.announce(wire.KindVideoOn, "camera")
		s := newSource(a, webrtc.MimeTypeVP8, "camera", steady)
		s.mid = "publisher's"
		a.negotiate(s.attach, nil)
		if _, mid, _ := s.extensions(); mid == 0 {
			t.Fatal("no header extension was negotiated for the publisher")
		}
		s.run(steady)
		h := b.hears("video", a)
		until(t, "the sequence number and the timestamp to wrap", func() bool { return h.count() > 100 })
		all := h.all()
		for i, x := range all {
			want := all[0].head.SequenceNumber + uint16(i)
			stamp := all[0].head.Timestamp + uint32(i)*1800
			if x.head.SequenceNumber != want || x.head.Timestamp != stamp || !x.head.Marker {
				t.Fatalf("packet %d: sequence number %d timestamp %d marker %v, want %d and %d", i, x.head.SequenceNumber, x.head.Timestamp, x.head.Marker, want, stamp)
			}
			for _, id := range x.head.GetExtensionIDs() {
				if value := string(x.head.GetExtension(id)); h.extensions[id] == "" || strings.Contains(value, "publisher") {
					t.Fatalf("packet %d has extension %d (%s) with %q", i, id, h.extensions[id], value)
				}
			}
		}
		// The timestamps are those of the publisher: the first one was known.
		if first := all[0].head; uint32(first.SequenceNumber-65500)*1800 != first.Timestamp-(1<<32-50000)-1800 {
			t.Errorf("sequence number %d has timestamp %d", first.SequenceNumber, first.Timestamp)
		}
	})
}
