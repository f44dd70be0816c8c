package conformance

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pion/webrtc/v3"

	"sallyport/sfu/wire"
)

// lock takes the signaling lock as clients do.
func (g *guest) lock() {
	g.t.Helper()
	until(g.t, "lock", func() bool { return g.tryLock() })
}

// tryLock asks for the lock once.
func (g *guest) tryLock() bool {
	g.t.Helper()
	g.tell(wire.ChannelMessage{Type: wire.ChannelLock})
	select {
	case granted := <-g.locks:
		if !granted {
			time.Sleep(50 * time.Millisecond) // rtcd protocol §4.6
		}
		return granted
	case <-time.After(patience):
		g.t.Fatal("no answer to a lock request")
		panic("unreachable")
	}
}

func (g *guest) unlock() { g.tell(wire.ChannelMessage{Type: wire.ChannelUnlock}) }

// negotiate changes the guest's tracks under the lock and returns the answer.
func (g *guest) negotiate(change func(), o *webrtc.OfferOptions) wire.Description {
	g.t.Helper()
	g.lock()
	g.turn.Lock()
	change()
	d, err := g.pc.CreateOffer(o)
	must(g.t, err)
	gathered := webrtc.GatheringCompletePromise(g.pc)
	must(g.t, g.pc.SetLocalDescription(d))
	<-gathered
	g.turn.Unlock()
	g.describe(wire.Description{Type: "offer", SDP: g.pc.LocalDescription().SDP})
	a := g.answer()
	g.accept(a)
	g.unlock()
	return a
}

// negotiateRudely changes the guest's tracks without the lock. When the server
// offers at the same time, the guest is the polite side: it forgets its own
// offer, takes the other, and begins anew.
func (g *guest) negotiateRudely(change func()) {
	g.t.Helper()
	change()
	until(g.t, "answer to an offer without the lock", func() bool {
		before := g.offered()
		g.turn.Lock()
		applied := g.applied
		d, err := g.pc.CreateOffer(nil) // not applied before it is answered: nothing to roll back
		g.turn.Unlock()
		must(g.t, err)
		g.describe(wire.Description{Type: "offer", SDP: d.SDP})
		for deadline := time.Now().Add(time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
			select {
			case a := <-g.answers:
				if !g.acceptUnless(applied, d, a) {
					return false
				}
				g.unlock()
				return true
			default:
			}
			if g.offered() != before {
				time.Sleep(50 * time.Millisecond)
				return false
			}
		}
		return false
	})
}

// hears waits until the guest gets packets of a class from a publisher, and
// returns the newest such track.
func (g *guest) hears(class string, from *guest) *heard {
	g.t.Helper()
	return g.hearsWithin(patience, class, from)
}

func (g *guest) hearsWithin(limit time.Duration, class string, from *guest) *heard {
	g.t.Helper()
	var found *heard
	within(g.t, limit, class+" of the other", func() bool {
		found = g.track(class, from)
		return found != nil && found.count() > 5
	})
	return found
}

// track returns the newest track of a class and publisher, or nil.
func (g *guest) track(class string, from *guest) *heard {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, h := range slices.Backward(g.heard) {
		if strings.HasPrefix(h.id, class+"_"+from.j.Session+"_") {
			return h
		}
	}
	return nil
}

// sent counts what the media map says is being sent, by class.
func (g *guest) sent() map[string]int {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := map[string]int{}
	for _, m := range g.media {
		out[m.Type]++
	}
	return out
}

// lines lists the m-lines on which something is being sent.
func (g *guest) lines() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Sorted(maps.Keys(g.media))
}

func (g *guest) awaitSent(what string, want map[string]int) {
	g.t.Helper()
	until(g.t, what, func() bool { return maps.Equal(g.sent(), want) })
}

// offered counts the server's offers.
func (g *guest) offered() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.offers)
}

func (g *guest) allOffers() []offer {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.offers)
}

// keepSilent makes the guest answer offers or not.
func (g *guest) keepSilent(silent bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.silent = silent
}

// awaitRaw waits for a binary message of the data channel.
func (g *guest) awaitRaw(what string, fits func([]byte) bool) {
	g.t.Helper()
	until(g.t, what, func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return slices.ContainsFunc(g.raw, fits)
	})
}

// sendRaw sends bytes on the data channel.
func (g *guest) sendRaw(b []byte) {
	g.t.Helper()
	must(g.t, g.dc.Send(b))
}

// announce tells the server the MediaStream of the screen or the camera.
func (g *guest) announce(kind wire.Kind, stream string) {
	g.t.Helper()
	g.p.rtc(g.j.Session, kind, wire.EncodeStream(kind, stream))
}

// rtc sends a message without data.
func (g *guest) rtc(kind wire.Kind) { g.t.Helper(); g.p.rtc(g.j.Session, kind, nil) }

// leave leaves the call and waits for the end of the session.
func (g *guest) leave() {
	g.t.Helper()
	g.p.leave(g.j.Session)
	g.p.await("close", closed(g.j.Session))
	g.close()
}

// close hangs up.
func (g *guest) close() {
	g.ending.Store(true)
	_ = g.pc.Close()
}

// direction returns the direction the guest has on an m-line.
func (g *guest) direction(mid string) string {
	g.turn.Lock()
	defer g.turn.Unlock()
	d := g.pc.CurrentLocalDescription()
	if d == nil {
		return ""
	}
	return directionOf(d.SDP, mid)
}

// section returns the m-section of a mid.
func section(sdp, mid string) string {
	parts := strings.Split(strings.ReplaceAll(sdp, "\r\n", "\n"), "\nm=")
	for _, s := range parts[1:] {
		if strings.Contains(s+"\n", "\na=mid:"+mid+"\n") {
			return "m=" + s
		}
	}
	return ""
}

func directionOf(sdp, mid string) string {
	for line := range strings.Lines(section(sdp, mid)) {
		switch d := strings.TrimPrefix(strings.TrimSpace(line), "a="); d {
		case "sendrecv", "sendonly", "recvonly", "inactive":
			return d
		}
	}
	return ""
}

// mids lists the m-lines of a description.
func mids(sdp string) []string {
	var out []string
	for line := range strings.Lines(sdp) {
		if mid, ok := strings.CutPrefix(strings.TrimSpace(line), "a=mid:"); ok {
			out = append(out, mid)
		}
	}
	return out
}

func (h *heard) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.packets)
}

func (h *heard) all() []packet {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.packets)
}

// flows waits for n further packets.
func (h *heard) flows(g *guest, n int) {
	g.t.Helper()
	from := h.count()
	until(g.t, "further packet", func() bool { return h.count() >= from+n })
}

// stops waits until no packet has come for a quarter of a second.
func (h *heard) stops(g *guest) {
	g.t.Helper()
	last, since := -1, time.Now()
	until(g.t, "silence", func() bool {
		if n := h.count(); n != last {
			last, since = n, time.Now()
		}
		return time.Since(since) > 250*time.Millisecond
	})
}
