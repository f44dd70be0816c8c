package conformance

import (
	"strings"
	"testing"
	"time"

	"sallyport/sfu/wire"
)

// picture tells what a viewer sees: the layer of the newest packets, 0 for
// none, or 'm' for a mixture.
func (g *guest) picture(from *guest) byte {
	h := g.track("screen", from)
	if h == nil {
		return 0
	}
	all := h.all()
	if len(all) < 15 || time.Since(all[len(all)-1].at) > time.Second {
		return 0
	}
	tag := all[len(all)-1].tag
	for _, x := range all[len(all)-15:] {
		if x.tag != tag {
			return 'm'
		}
	}
	return tag
}

func TestConformance60Simulcast(t *testing.T) {
	conform(t, 60, patient, func(t testing.TB) {
		p := dial(t)
		a := enter(t, p, newID(), options{})
		a.announce(wire.KindScreenOn, "screen")
		s, answer := a.publishSimulcast("screen")
		for _, line := range []string{"a=rid:l recv", "a=rid:h recv", "a=simulcast:recv l;h"} {
			if !strings.Contains(answer.SDP, line) {
				t.Errorf("the answer lacks %s:\n%s", line, answer.SDP)
			}
		}
		s.when(10) // the share has been going on for 2 s

		r := newRelay(t)
		began := time.Now()
		b := enter(t, p, a.j.Call, options{relay: r, twcc: true})
		var h *heard
		until(t, "key frame", func() bool {
			if h = b.track("screen", a); h == nil {
				return false
			}
			for _, x := range h.all() {
				if x.key {
					return true
				}
			}
			return false
		})
		if took := time.Since(began); took > 4*time.Second {
			t.Errorf("a late joiner sees a picture after %s", took)
		}
		within(t, 30*time.Second, "high layer", func() bool { return b.picture(a) == 'h' })
		t.Logf("high layer %s after joining", time.Since(began).Round(time.Millisecond))
		r.rate.Store(600_000)
		cut := time.Now()
		within(t, 20*time.Second, "low layer", func() bool { return b.picture(a) == 'l' })
		t.Logf("low layer %s after the road became narrow", time.Since(cut).Round(time.Millisecond))
	})
}
