package feedback

import (
	"testing"
	"time"
)

func TestOverdue(t *testing.T) {
	var p Path
	r := receiver{t, &p, time.Hour}
	if got := p.Overdue(after(0)); got != 0 {
		t.Errorf("%v overdue before anything was sent", got)
	}
	step := 20 * ms
	for i := range 100 { // each is reported 60 ms after it was sent
		now := time.Duration(i) * step
		n := p.Send(after(now), 1000)
		if got := p.Overdue(after(now)); got > 50*ms {
			t.Fatalf("packet %d: %v overdue", i, got)
		}
		if i >= 3 {
			r.report(after(now), n-3, now-40*ms)
		}
	}
	quiet := 100 * step
	for i := range 50 { // no reports any more
		p.Send(after(quiet+time.Duration(i)*step), 1000)
	}
	if got := p.Overdue(after(quiet + 1000*ms)); got < 950*ms || got > 1010*ms {
		t.Errorf("%v overdue after a second of silence", got)
	}
	for range 3 * history { // the oldest is forgotten
		p.Send(after(quiet+1000*ms), 1000)
	}
	if got := p.Overdue(after(quiet + 2000*ms)); got < 1900*ms {
		t.Errorf("%v overdue after two seconds of silence", got)
	}
	r.report(after(quiet+2*time.Second), p.next-1, quiet+2*time.Second)
	if got := p.Overdue(after(quiet + 9*time.Second)); got != 0 {
		t.Errorf("%v overdue with everything reported", got)
	}
}
