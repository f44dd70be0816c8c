package conformance

import (
	"bytes"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/pion/webrtc/v3"

	"sallyport/sfu/wire"
)

func TestConformance33FirstAnswer(t *testing.T) {
	conform(t, 33, brief, func(t testing.TB) {
		p := dial(t)
		g := newGuest(t, p, newID(), options{})
		g.knock()
		a := g.answer()
		if n := strings.Count(a.SDP, "\nm="); n != 1 || !strings.Contains(a.SDP, "\nm=application ") {
			t.Errorf("%d sections, want one m=application:\n%s", n, a.SDP)
		}
		if attribute(a.SDP, "setup") != "active" || strings.Contains(a.SDP, "a=ice-lite") || !strings.Contains(a.SDP, "a=group:BUNDLE 0") {
			t.Errorf("want setup:active, no ice-lite, and a BUNDLE:\n%s", a.SDP)
		}
		if !strings.Contains(a.SDP, "a=fingerprint:sha-256 ") || attribute(a.SDP, "sctp-port") != "5000" {
			t.Errorf("no SHA-256 fingerprint, or not SCTP port 5000:\n%s", a.SDP)
		}
		trickled := func(fits func(protocol, candidate string) bool) func(frame) bool {
			return func(f frame) bool {
				if f.session() != g.j.Session || f.Message.Kind != wire.KindICE {
					return false
				}
				c, err := wire.DecodeCandidate(f.Message.Data)
				protocol, addr := endpoint(c.Candidate)
				return err == nil && addr.IsValid() && fits(protocol, c.Candidate)
			}
		}
		p.await("UDP host candidate", trickled(func(protocol, c string) bool { return protocol == "udp" && strings.Contains(c, " typ host") }))
		p.await("passive TCP host candidate", trickled(func(protocol, c string) bool {
			return protocol == "tcp" && strings.Contains(c, " typ host") && strings.Contains(c, "tcptype passive")
		}))
		for _, f := range p.all(trickled(func(string, string) bool { return true })) {
			if strings.Contains(string(f.Message.Data), ".local") {
				t.Errorf("a candidate hides its address: %s", f.Message.Data)
			}
		}
	})
}

func TestConformance34TCPAlone(t *testing.T) {
	conform(t, 34, brief, func(t testing.TB) {
		p := dial(t)
		onlyTCP := func(c string) bool { protocol, _ := endpoint(c); return protocol == "tcp" }
		a := enter(t, p, newID(), options{tcp: true, keeps: onlyTCP})
		b := enter(t, p, a.j.Call, options{})
		a.publish(webrtc.MimeTypeOpus, "mic")
		b.publish(webrtc.MimeTypeOpus, "mic")
		b.hears("voice", a)
		a.hears("voice", b)
		pair, err := a.pc.SCTP().Transport().ICETransport().GetSelectedCandidatePair()
		must(t, err)
		if pair.Remote.Protocol != webrtc.ICEProtocolTCP {
			t.Errorf("the guest is on %s", pair)
		}
	})
}

func TestConformance35EarlyCandidatesAreUsed(t *testing.T) {
	conform(t, 35, brief, func(t testing.TB) {
		p := dial(t)
		// The guest gets to see no candidate of the server, so it can only be
		// found, at the candidates that the server got before the offer.
		g := newGuest(t, p, newID(), options{keeps: func(string) bool { return false }})
		d := g.firstOffer()
		p.join(g.j)
		p.awaitMember(g.j.Call, g.j.Session)
		n := 0
		bare := mapCandidates(d.SDP, func(c string) string {
			mid, line := "0", uint16(0)
			p.rtc(g.j.Session, wire.KindICE, wire.EncodeBareCandidate(wire.Candidate{Candidate: c, SDPMid: &mid, SDPMLineIndex: &line}))
			n++
			return ""
		})
		if n == 0 {
			t.Fatal("the guest has no candidates")
		}
		p.rtc(g.j.Session, wire.KindSDP, wire.EncodeDescription(wire.Description{Type: "offer", SDP: bare}))
		g.arrive()
	})
}

func TestConformance36Browsers(t *testing.T) {
	conform(t, 36, brief, func(t testing.TB) {
		elsewhere(t, "gateway/browser_test.go", "TestBrowser", "this suite drives no browser; Chromium only, for there is no Firefox or Safari here")
	})
}

func TestConformance37Pings(t *testing.T) {
	conform(t, 37, brief, func(t testing.TB) {
		g := enter(t, dial(t), newID(), options{})
		pong := func(b []byte) bool { return bytes.Equal(b, []byte{0xcc, 2}) || bytes.Equal(b, []byte{2}) }
		g.sendRaw([]byte{1})
		g.awaitRaw("pong", pong)
		g.sendRaw([]byte{0xcc, 1})
		until(t, "second pong", func() bool {
			g.mu.Lock()
			defer g.mu.Unlock()
			n := 0
			for _, b := range g.raw {
				if pong(b) {
					n++
				}
			}
			return n == 2
		})
		must(t, g.dc.SendText("ping"))
		until(t, "text pong", func() bool { g.mu.Lock(); defer g.mu.Unlock(); return cmp.Equal(g.texts, []string{"pong"}) })
		for _, nonsense := range []string{"0a", "03", "03c403616263", "d101", "09", "04", "04a161"} {
			g.sendRaw(unhex(t, nonsense))
		}
		must(t, g.dc.SendText("pong?"))
		g.sendRaw([]byte{7}) // it still listens
		g.awaitRaw("lock", func(b []byte) bool { return bytes.Equal(b, []byte{0xcc, 7, 0xc3}) })
	})
}

func TestConformance38Lock(t *testing.T) {
	conform(t, 38, brief, func(t testing.TB) {
		g := enter(t, dial(t), newID(), options{})
		asks := func(request string, want bool) {
			t.Helper()
			g.sendRaw(unhex(t, request))
			select {
			case got := <-g.locks:
				if got != want {
					t.Errorf("a request %s for the lock is answered with %v", request, got)
				}
			case <-time.After(patience):
				t.Fatal("no answer to a lock request")
			}
		}
		asks("07", true)
		asks("07", false)
		asks("cc07", false)
		g.sendRaw([]byte{8})
		asks("07c0", true)
		for range 3 { // one holds, the others are too many
			g.sendRaw([]byte{0xcc, 8})
		}
		asks("07", true)
		g.mu.Lock()
		defer g.mu.Unlock()
		granted, refused := []byte{0xcc, 7, 0xc3}, []byte{0xcc, 7, 0xc2}
		if diff := cmp.Diff([][]byte{granted, refused, refused, granted, granted}, g.raw); diff != "" {
			t.Errorf("messages of the server (-want +got):\n%s", diff)
		}
	})
}

// scrape reads the metrics of the server at url.
func scrape(t testing.TB, url string) map[string]float64 {
	t.Helper()
	r := ask(t, http.MethodGet, url+"/metrics", "", nobody)
	if r.status != http.StatusOK {
		t.Fatalf("GET /metrics: %d %s", r.status, r.body)
	}
	out := map[string]float64{}
	for line := range strings.Lines(r.body) {
		line = strings.TrimSpace(line)
		if i := strings.LastIndexByte(line, ' '); i > 0 && line[0] != '#' {
			v, err := strconv.ParseFloat(line[i+1:], 64)
			if err != nil {
				t.Fatalf("metric %q: %v", line, err)
			}
			out[line[:i]] = v
		}
	}
	return out
}

func TestConformance39ClientStatistics(t *testing.T) {
	conform(t, 39, brief, func(t testing.TB) {
		a := another(t)
		g := enter(t, dialAs(t, shared.url, a), newID(), options{})
		label := fmt.Sprintf("{groupID=%q}", a.id)
		for _, v := range []struct {
			name, hex string
			value     float64
		}{
			{"loss_rate", "0400", 0}, {"loss_rate", "0401", 1}, {"loss_rate", "04cb3fa999999999999a", 0.05},
			{"loss_rate", "cc04cb3fa999999999999a", 0.05}, {"loss_rate", "04ca3d4ccccd", 0.05},
			{"rtt", "05cb3f8930be0ded288d", 0.0123}, {"rtt", "cc05cb3fb999999999999a", 0.1},
			{"jitter", "06cb3f60624dd2f1a9fc", 0.002}, {"jitter", "cc06cb3f60624dd2f1a9fc", 0.002},
		} {
			metric := "rtcd_rtc_client_" + v.name
			before := scrape(t, shared.url)
			g.sendRaw(unhex(t, v.hex))
			until(t, metric+" after "+v.hex, func() bool {
				after := scrape(t, shared.url)
				if after[metric+"_count"+label] != before[metric+"_count"+label]+1 {
					return false
				}
				if got := after[metric+"_sum"+label] - before[metric+"_sum"+label]; math.Abs(got-v.value) > 1e-6 {
					t.Errorf("%s changes the sum by %g, want %g", v.hex, got, v.value)
				}
				return true
			})
		}
	})
}

func TestConformance40DeathIsNoticed(t *testing.T) {
	conform(t, 40, patient, func(t testing.TB) {
		p := dial(t)
		r := newRelay(t)
		dead := enter(t, p, newID(), options{relay: r})
		r.dead.Store(true)
		begun := time.Now()

		polite := enter(t, p, newID(), options{})
		closing := time.Now()
		polite.close()
		if took := p.await("close", closed(polite.j.Session)).at.Sub(closing); took > 5*time.Second {
			t.Errorf("a connection that the client closed was closed after %s", took)
		}

		var found []frame
		within(t, time.Minute, "close", func() bool { found = p.all(closed(dead.j.Session)); return len(found) > 0 })
		if took := found[0].at.Sub(begun); took < 25*time.Second || took > 40*time.Second {
			t.Errorf("a client that died was given up after %s, want 25 to 40 s", took)
		}
	})
}

func TestConformance41ICERestart(t *testing.T) {
	conform(t, 41, brief, func(t testing.TB) {
		p := dial(t)
		a := enter(t, p, newID(), options{})
		b := enter(t, p, a.j.Call, options{})
		a.publish(webrtc.MimeTypeOpus, "mic")
		b.publish(webrtc.MimeTypeOpus, "mic")
		h, k := b.hears("voice", a), a.hears("voice", b)
		before := attribute(a.pc.LocalDescription().SDP, "ice-ufrag")
		answer := a.negotiate(func() {}, &webrtc.OfferOptions{ICERestart: true})
		if after := attribute(a.pc.LocalDescription().SDP, "ice-ufrag"); after == before || attribute(answer.SDP, "ice-ufrag") == "" {
			t.Fatalf("no restart: ufrag %s, then %s", before, after)
		}
		h.flows(b, 100)
		k.flows(a, 100)
		if len(p.all(closed(a.j.Session))) > 0 {
			t.Error("the session ended")
		}
	})
}

func TestConformance42RoleConflict(t *testing.T) {
	conform(t, 42, patient, func(t testing.TB) {
		p := dial(t)
		b := enter(t, p, newID(), options{})
		b.publish(webrtc.MimeTypeOpus, "mic")
		// A tie-breaker that loses makes the server take the controlling role;
		// one that wins makes it answer 487 and keep its own.
		type member struct {
			g *guest
			r *roleRelay
			h *heard
		}
		var all []member
		for _, tie := range []uint64{0, math.MaxUint64} {
			r := newRoleRelay(t, tie)
			a := enter(t, p, b.j.Call, options{relay: r.relay})
			a.publish(webrtc.MimeTypeOpus, "mic")
			a.hears("voice", b) // it has answered an offer of the server
			all = append(all, member{a, r, b.hears("voice", a)})
		}
		// A third one is alone in its call, so that the server has nothing to send
		// but its own checks. They are answered with 487, to which it must switch
		// its role and check again.
		r := newRoleRelay(t, 0)
		r.late = true
		alone := enter(t, p, newID(), options{relay: r.relay})
		r.turn()
		for _, m := range all {
			m.r.turn()
		}
		for end := time.Now().Add(time.Minute); time.Now().Before(end); {
			for _, m := range all {
				m.h.flows(b, 10)
				m.g.track("voice", b).flows(m.g, 10)
				if len(p.all(closed(m.g.j.Session))) > 0 {
					t.Fatalf("the session with tie-breaker %x ended; relay: %s", m.r.tie, m.r)
				}
				if m.r.deaf() > 10*time.Second { // a browser's agent calls that disconnected, and failed after 30 s
					t.Fatalf("the server does not answer the checks of tie-breaker %x; relay: %s", m.r.tie, m.r)
				}
			}
			if r.rejecting.Load() > 5 && r.switched.Load() == 0 {
				t.Fatalf("the server does not switch its role when it is answered 487; relay: %s", r)
			}
		}
		t.Logf("487 to the server: %s", r)
		if r.rejecting.Load() == 0 || r.switched.Load() == 0 || r.deaf() > 10*time.Second {
			t.Errorf("the server did not resolve a conflict that a 487 told it of; relay: %s", r)
		}
		alone.publish(webrtc.MimeTypeOpus, "mic")
		for _, m := range all {
			t.Logf("tie-breaker %x: %s", m.r.tie, m.r)
			if m.r.conflicts.Load() == 0 {
				t.Errorf("tie-breaker %x: no conflict took place", m.r.tie)
			}
			m.g.publish(webrtc.MimeTypeVP8, "unannounced") // it can still negotiate
		}
	})
}
