package conformance

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/pion/webrtc/v3"

	"sallyport/sfu/wire"
)

// fresh returns the m-lines on which an offer begins to send, as a browser sees
// it: those that have a msid which they had not before.
func fresh(all []offer, i int) map[string]string {
	msids := func(sdp string) map[string]string {
		out := map[string]string{}
		for _, mid := range mids(sdp) {
			s := section(sdp, mid)
			if d := directionOf(sdp, mid); d != "sendrecv" && d != "sendonly" {
				continue
			}
			if msid := attribute(s, "msid"); msid != "" {
				out[mid] = msid
			}
		}
		return out
	}
	now := msids(all[i].sdp)
	if i > 0 {
		for mid, msid := range msids(all[i-1].sdp) {
			if now[mid] == msid {
				delete(now, mid)
			}
		}
	}
	return now
}

// checkMaps wants every m-line that an offer begins to send on to be in the last
// media map before it, under the right type and sender.
func checkMaps(t testing.TB, g *guest) {
	t.Helper()
	all := g.allOffers()
	for i, o := range all {
		if o.dc != g.o.dc {
			t.Errorf("offer %d came on the data channel: %v, want %v", i, o.dc, g.o.dc)
		}
		for mid, msid := range fresh(all, i) {
			stream, id, _ := strings.Cut(msid, " ")
			f := strings.Split(id, "_")
			if len(f) != 3 || f[1] != stream || len(f[2]) != 8 {
				t.Errorf("offer %d: msid %q", i, msid)
				continue
			}
			if got := o.media[mid]; got != (wire.Media{Type: f[0], Sender: stream}) && got != (wire.Media{Type: f[0], Sender: g.j.Session}) {
				t.Errorf("offer %d: the map before it says %+v of mid %s, which is %s", i, got, mid, msid)
			}
		}
	}
}

func TestConformance43VoiceReachesOthers(t *testing.T) {
	conform(t, 43, brief, func(t testing.TB) {
		p := dial(t)
		a, b := enter(t, p, newID(), options{}), (*guest)(nil)
		b = enter(t, p, a.j.Call, options{})
		a.publish(webrtc.MimeTypeOpus, "mic")
		a.rtc(wire.KindUnmute)
		h := b.hears("voice", a)
		h.flows(b, 50)
		b.mu.Lock()
		m, offers := b.media, len(b.offers)
		b.mu.Unlock()
		if len(m) != 1 || m[h.mid].Type != "voice" || offers != 1 {
			t.Errorf("%d offers, media map %+v, voice is on mid %s", offers, m, h.mid)
		}
		msid := attribute(section(b.allOffers()[0].sdp, h.mid), "msid")
		if msid != h.stream+" "+h.id || h.stream != a.j.Session {
			t.Errorf("msid %q for stream %s track %s", msid, h.stream, h.id)
		}
		checkMaps(t, b)
		if a.offered() != 0 {
			t.Error("the speaker is offered something")
		}
	})
}

func TestConformance44TrackIDsParse(t *testing.T) {
	conform(t, 44, brief, func(t testing.TB) {
		p := dial(t)
		// The transcriber speaks over the WebSocket and parses the track ID.
		a, b := enter(t, p, newID(), options{}), (*guest)(nil)
		b = enter(t, p, a.j.Call, options{})
		a.publish(webrtc.MimeTypeOpus, "mic")
		h := b.hears("voice", a)
		f := strings.Split(h.id, "_")
		if len(f) != 3 || f[0] != "voice" || f[1] != a.j.Session || strings.Trim(f[2], "abcdefghijklmnopqrstuvwxyz0123456789") != "" || len(f[2]) != 8 {
			t.Errorf("track ID %q", h.id)
		}
		if cname := attribute(b.allOffers()[0].sdp, "ssrc"); !strings.HasSuffix(cname, " cname:"+a.j.Session) {
			t.Errorf("a=ssrc:%s, want the speaker's session as cname", cname)
		}
	})
}

func TestConformance45Mute(t *testing.T) {
	conform(t, 45, brief, func(t testing.TB) {
		p := dial(t)
		a, b := enter(t, p, newID(), options{}), (*guest)(nil)
		b = enter(t, p, a.j.Call, options{})
		a.publish(webrtc.MimeTypeOpus, "mic")
		h := b.hears("voice", a)
		offers := b.offered()
		a.rtc(wire.KindMute) // and goes on sending, as a bad client would
		p.await("voice-off", voice(a.j.Session, wire.KindVoiceOff))
		h.stops(b)
		n := h.count()
		never(t, 500*time.Millisecond, "packets while muted", func() bool { return h.count() != n })
		a.rtc(wire.KindUnmute)
		h.flows(b, 25)
		if b.offered() != offers || b.track("voice", a) != h {
			t.Errorf("mute and unmute made %d offers, and the track changed: %v", b.offered()-offers, b.track("voice", a) != h)
		}
		for _, x := range h.all() {
			if webrtc.SSRC(x.head.SSRC) != h.ssrc {
				t.Fatalf("SSRC %d after %d", x.head.SSRC, h.ssrc)
			}
		}
	})
}

func TestConformance46BothSpeakOnOneSection(t *testing.T) {
	conform(t, 46, brief, func(t testing.TB) {
		p := dial(t)
		for _, dc := range []bool{false, true} {
			a := enter(t, p, newID(), options{dc: dc})
			b := enter(t, p, a.j.Call, options{})
			a.publish(webrtc.MimeTypeOpus, "mic")
			b.hears("voice", a)
			b.publish(webrtc.MimeTypeOpus, "mic")
			a.hears("voice", b)
			h := b.track("voice", a)
			h.flows(b, 25)
		}
	})
}

func TestConformance47LatecomerGetsEverything(t *testing.T) {
	conform(t, 47, brief, func(t testing.TB) {
		p := dial(t)
		a, b := enter(t, p, newID(), options{}), (*guest)(nil)
		b = enter(t, p, a.j.Call, options{})
		a.publish(webrtc.MimeTypeOpus, "mic")
		b.publish(webrtc.MimeTypeOpus, "mic")
		a.announce(wire.KindScreenOn, "screen")
		a.publish(webrtc.MimeTypeVP8, "screen")
		a.publish(webrtc.MimeTypeOpus, "screen")
		b.announce(wire.KindVideoOn, "camera")
		b.publish(webrtc.MimeTypeVP8, "camera")
		b.hears("screen-audio", a)
		a.hears("video", b)
		for _, dc := range []bool{false, true} {
			c := newGuest(t, p, a.j.Call, options{dc: dc})
			c.knock()
			c.arrive()
			c.hears("voice", a)
			c.hears("voice", b)
			c.hears("screen", a)
			c.hears("screen-audio", a)
			c.hears("video", b)
			c.publish(webrtc.MimeTypeOpus, "mic")
			a.hears("voice", c)
			checkMaps(t, c)
			c.mu.Lock()
			for _, h := range c.heard {
				if h.stream == c.j.Session {
					t.Errorf("it gets %s of its own", h.id)
				}
			}
			c.mu.Unlock()
			if want := map[string]int{"voice": 2, "screen": 1, "screen-audio": 1, "video": 1}; !cmp.Equal(c.sent(), want) {
				t.Errorf("media map has %v, want %v", c.sent(), want)
			}
			c.leave()
			a.awaitSent("voice of the latecomer gone", map[string]int{"voice": 1, "video": 1})
		}
	})
}

func TestConformance48RoadsOfSignaling(t *testing.T) {
	conform(t, 48, brief, func(t testing.TB) {
		p := dial(t)
		for _, dc := range []bool{true, false} {
			a := enter(t, p, newID(), options{dc: dc})
			b := enter(t, p, a.j.Call, options{dc: !dc})
			a.publish(webrtc.MimeTypeOpus, "mic")
			b.publish(webrtc.MimeTypeOpus, "mic")
			a.hears("voice", b)
			b.hears("voice", a)
			a.announce(wire.KindVideoOn, "camera")
			s := a.publish(webrtc.MimeTypeVP8, "camera")
			b.hears("video", a)
			s.unpublish()
			b.awaitSent("camera gone", map[string]int{"voice": 1})
			for _, g := range []*guest{a, b} {
				checkMaps(t, g)
				if g.offered() == 0 {
					t.Error("no offers")
				}
			}
		}
	})
}

func TestConformance49Glare(t *testing.T) {
	conform(t, 49, brief, func(t testing.TB) {
		p := dial(t)
		for round, o := range []options{{}, {dc: true}, {}, {dc: true}} {
			b := enter(t, p, newID(), options{})
			c := enter(t, p, b.j.Call, o)
			s := newSource(c, webrtc.MimeTypeOpus, "mic", steady)
			if round < 2 {
				// The server's offer is on its way, its answer is not.
				c.keepSilent(true)
				b.publish(webrtc.MimeTypeOpus, "mic")
				until(t, "offer", func() bool { return c.offered() == 1 })
				s.attach()
				d, err := c.pc.CreateOffer(nil)
				must(t, err)
				c.describe(wire.Description{Type: "offer", SDP: d.SDP})
				select {
				case <-c.answers:
					t.Error("an offer is answered in the middle of another negotiation")
				case <-time.After(300 * time.Millisecond):
				}
				c.keepSilent(false)
				c.reply(c.allOffers()[0].sdp)
				c.negotiateRudely(func() {})
			} else {
				done := make(chan struct{})
				go func() {
					defer close(done)
					c.negotiateRudely(s.attach)
				}()
				b.publish(webrtc.MimeTypeOpus, "mic")
				<-done
			}
			s.run(steady)
			c.hears("voice", b)
			b.hears("voice", c)
		}
	})
}

func TestConformance50AbandonedLock(t *testing.T) {
	conform(t, 50, patient, func(t testing.TB) {
		p := dial(t)
		b, c := enter(t, p, newID(), options{}), (*guest)(nil)
		c = enter(t, p, b.j.Call, options{dc: true})
		c.lock() // and never unlocks
		begun := time.Now()
		b.publish(webrtc.MimeTypeOpus, "mic")
		d := enter(t, p, b.j.Call, options{})
		d.hearsWithin(9*time.Second, "voice", b)
		d.publish(webrtc.MimeTypeOpus, "mic")
		b.hearsWithin(9*time.Second, "voice", d)
		c.hears("voice", b)
		c.hears("voice", d)
		t.Logf("the lock was taken back within %s", time.Since(begun))
		c.publish(webrtc.MimeTypeOpus, "mic") // it can have the lock again
		b.hears("voice", c)
	})
}

func TestConformance51MissingAnswer(t *testing.T) {
	conform(t, 51, patient, func(t testing.TB) {
		p := dial(t)
		type scene struct{ b, c, d *guest }
		var all []scene
		for _, o := range []options{{}, {dc: true}} {
			b := enter(t, p, newID(), options{})
			c := enter(t, p, b.j.Call, o)
			c.keepSilent(true)
			b.publish(webrtc.MimeTypeOpus, "mic")
			until(t, "offer", func() bool { return c.offered() > 0 })
			d := enter(t, p, b.j.Call, options{})
			d.hearsWithin(9*time.Second, "voice", b)
			d.publish(webrtc.MimeTypeOpus, "mic")
			b.hearsWithin(9*time.Second, "voice", d)
			c.keepSilent(false)
			all = append(all, scene{b, c, d})
		}
		for _, s := range all {
			s.c.hears("voice", s.b)
			s.c.hears("voice", s.d)
		}
	})
}

func TestConformance64VoiceActivity(t *testing.T) {
	conform(t, 64, patient, func(t testing.TB) {
		p := dial(t)
		const slack = 900 * time.Millisecond // of a busy machine; a window is 1 s
		play := func(levels func(int) uint8) (*guest, *source) {
			g := enter(t, p, newID(), options{})
			s := newSource(g, webrtc.MimeTypeOpus, "mic", steady)
			s.levels = levels
			g.negotiate(s.attach, nil)
			return g, s.run(steady)
		}
		speaker, s := play(func(i int) uint8 {
			switch {
			case i < 50 || i > 150:
				return 127
			case i == 50 || i%2 == 1:
				return 40
			}
			return 110
		})
		quiet, q := play(func(i int) uint8 {
			if i == 50 {
				return 100
			}
			return 127
		})
		muted, m := play(func(i int) uint8 { return uint8(i%2) * 100 })

		// Index 50 begins speech, and index 199 (t = 3.98 s) ends it.
		check := func(g *guest, s *source, kind wire.Kind, index int) {
			at := p.await(fmt.Sprintf("event %d", kind), voice(g.j.Session, kind)).at
			if late := at.Sub(s.when(index)); late < -5*time.Millisecond || late > slack {
				t.Errorf("event %d came %s after packet %d", kind, late, index)
			}
		}
		check(speaker, s, wire.KindVoiceOn, 50)

		// A mute ends speech at once; then a whole window is needed again.
		p.await("voice-on", voice(muted.j.Session, wire.KindVoiceOn))
		m.pause(true)
		begun := time.Now()
		muted.rtc(wire.KindMute)
		if took := p.await("voice-off", voice(muted.j.Session, wire.KindVoiceOff)).at.Sub(begun); took > slack {
			t.Errorf("voice-off %s after a mute", took)
		}
		muted.rtc(wire.KindUnmute)
		ons := func() []frame { return p.all(voice(muted.j.Session, wire.KindVoiceOn)) }
		from := m.sent()
		m.pause(false)
		until(t, "second voice-on", func() bool { return len(ons()) == 2 })
		if early := m.when(from + 50).Sub(ons()[1].at); early > 5*time.Millisecond || -early > slack {
			t.Errorf("after the mute speech began %s before its 51st packet", early)
		}

		check(speaker, s, wire.KindVoiceOff, 199)
		q.when(210)
		if f := p.all(func(f frame) bool { return f.Type == wire.TypeVAD && f.session() == quiet.j.Session }); len(f) > 0 {
			t.Errorf("one packet of level 100 makes %d events", len(f))
		}
		if n := len(p.all(func(f frame) bool { return f.Type == wire.TypeVAD && f.session() == speaker.j.Session })); n != 2 {
			t.Errorf("%d events of the speaker, want 2", n)
		}
	})
}

func TestConformance65VoiceWithoutLevels(t *testing.T) {
	conform(t, 65, brief, func(t testing.TB) {
		p := dial(t)
		a, b := enter(t, p, newID(), options{noLevel: true}), (*guest)(nil)
		b = enter(t, p, a.j.Call, options{})
		s := a.publish(webrtc.MimeTypeOpus, "mic")
		h := b.hears("voice", a)
		s.when(60)
		h.flows(b, 25)
		if f := p.all(func(f frame) bool { return f.Type == wire.TypeVAD && f.session() == a.j.Session }); len(f) > 0 {
			t.Errorf("event %d without levels", f[0].Message.Kind)
		}
	})
}

func TestConformance66LeavingFreesTheSection(t *testing.T) {
	conform(t, 66, patient, func(t testing.TB) {
		p := dial(t)
		b := enter(t, p, newID(), options{})
		b.publish(webrtc.MimeTypeOpus, "mic")
		a := enter(t, p, b.j.Call, options{})
		a.publish(webrtc.MimeTypeOpus, "mic")
		h := b.hears("voice", a)
		a.hears("voice", b)
		a.leave()
		h.stops(b)
		const rounds, crowd = 20, 5
		for range rounds { // 100 cycles, five at a time
			visitors := make([]*guest, crowd)
			for i := range visitors {
				visitors[i] = newGuest(t, p, b.j.Call, options{})
				visitors[i].knock()
			}
			for _, v := range visitors {
				v.arrive()
				v.publish(webrtc.MimeTypeOpus, "mic")
			}
			b.hears("voice", visitors[crowd-1])
			b.awaitSent("voices", map[string]int{"voice": crowd})
			for _, v := range visitors {
				v.leave()
			}
			b.awaitSent("voices gone", map[string]int{})
		}
		c := enter(t, p, b.j.Call, options{})
		c.publish(webrtc.MimeTypeOpus, "mic")
		b.hears("voice", c)
		c.hears("voice", b)
		all := b.allOffers()
		if n := strings.Count(all[len(all)-1].sdp, "\nm="); n > 4*crowd {
			t.Errorf("%d sections after %d visitors, %d at a time", n, rounds*crowd, crowd)
		}
		if len(p.all(closed(b.j.Session))) > 0 {
			t.Error("the one who stayed was closed")
		}
	})
}
