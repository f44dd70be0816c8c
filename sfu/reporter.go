package sfu

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/pion/rtcp"

	"sallyport/sfu/internal/reports"
)

const (
	// reportTick is how often it is looked what is due: how long a lost packet
	// waits to be asked for, besides its own patience.
	reportTick = 25 * time.Millisecond
	// reportTicks is how many ticks lie between two receiver and sender reports of
	// a session (a second, as browsers have it), and arrivalsEvery what lies
	// between two transport-cc reports.
	reportTicks   = int(time.Second / reportTick)
	arrivalsEvery = 100 * time.Millisecond
	// reportsAtOnce is how many reports are put into one datagram.
	reportsAtOnce = 30
)

// A reporter sends the RTCP of all sessions that has to go out again and again.
// One goroutine does it, so that a session has no timer of its own, and one that
// is silent costs nothing.
//
//	each tick: sessions with losses or arrivals to report ─> NACK, transport-cc
//	           one in forty of all sessions ──────────────> receiver and sender reports
type reporter struct {
	mu    sync.Mutex // guards the following
	slots [][]*media // by the tick that is a session's turn
	next  int
	woken chan struct{} // capacity 1: there is a session
}

func newReporter() *reporter {
	return &reporter{slots: make([][]*media, reportTicks), woken: make(chan struct{}, 1)}
}

// add makes the reports of a session. Sessions are spread over the second.
func (r *reporter) add(m *media) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.next = (r.next + 1) % len(r.slots)
	r.slots[r.next] = append(r.slots[r.next], m)
	select {
	case r.woken <- struct{}{}:
	default:
	}
}

func (r *reporter) remove(m *media) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, s := range r.slots {
		if at := slices.Index(s, m); at >= 0 {
			r.slots[i] = slices.Delete(s, at, at+1)
			return
		}
	}
}

// run makes reports until ctx ends.
func (r *reporter) run(ctx context.Context) {
	ticker := time.NewTicker(reportTick)
	defer ticker.Stop()
	var due []*media
	for tick := 0; ; tick++ {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := time.Now()
		var turn []*media
		var empty bool
		if due, turn, empty = r.look(due[:0], tick); empty {
			ticker.Stop()
			select {
			case <-ctx.Done():
				return
			case <-r.woken:
				ticker.Reset(reportTick)
			}
		}
		for _, m := range due {
			m.feedback(now)
		}
		for _, m := range turn {
			m.report(now)
		}
	}
}

// look lists the sessions that have something to report, and those whose turn it
// is.
func (r *reporter) look(due []*media, tick int) (_, turn []*media, empty bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	empty = true
	for _, s := range r.slots {
		for _, m := range s {
			empty = false
			if m.due.Load() {
				due = append(due, m)
			}
		}
	}
	return due, slices.Clone(r.slots[tick%len(r.slots)]), empty
}

// feedback asks for lost packets and reports arrivals, as far as it is time.
func (m *media) feedback(now time.Time) {
	m.mu.Lock()
	m.due.Store(false)
	var out []rtcp.Packet
	again := false
	for ssrc, in := range m.sources {
		if !in.losses.Missing() {
			continue
		}
		if seqs := in.losses.Due(now); len(seqs) > 0 {
			out = append(out, &rtcp.TransportLayerNack{SenderSSRC: m.sender, MediaSSRC: ssrc, Nacks: rtcp.NackPairsFromSequenceNumbers(seqs)})
		}
		again = again || in.losses.Missing()
	}
	if m.arrivals != nil {
		if now.Sub(m.reported) < arrivalsEvery {
			again = true
		} else {
			m.reported = now
			for f := m.arrivals.Feedback(m.sender); f != nil; f = m.arrivals.Feedback(m.sender) {
				out = append(out, f)
			}
		}
	}
	m.mu.Unlock()
	if again {
		m.due.Store(true)
	}
	for _, p := range out {
		m.write(p)
	}
}

// report makes the receiver and sender reports of the session.
func (m *media) report(now time.Time) {
	if m.way.Load() == nil {
		m.way.CompareAndSwap(nil, m.find())
	}
	if ufrag := m.ufrag.Load(); ufrag != nil && m.seconds.Add(1) == buffersKept {
		m.session.server.mux.giveBack(*ufrag)
	}
	var all []rtcp.Packet
	m.mu.Lock()
	var in []rtcp.ReceptionReport
	for ssrc, s := range m.sources {
		if s.up == nil || !s.news {
			continue
		}
		s.news = false
		r := s.stats.Report(now)
		r.SSRC = ssrc
		in = append(in, r)
	}
	m.mu.Unlock()
	if w := m.way.Load(); w != nil && (m.lively.Swap(false) || len(in) > 0) {
		w.alive(now)
	}
	for part := range slices.Chunk(in, reportsAtOnce) {
		all = append(all, &rtcp.ReceiverReport{SSRC: m.sender, Reports: part})
	}
	m.downsMu.Lock()
	downs := make([]*down, 0, len(m.downs))
	for d := range m.downs {
		downs = append(downs, d)
	}
	m.downsMu.Unlock()
	for _, d := range downs {
		if r := d.report(now); r != nil {
			all = append(all, r)
		}
	}
	for part := range slices.Chunk(all, reportsAtOnce) {
		m.write(part...)
	}
}

// write sends RTCP. What cannot be sent is not missed: the session is ending, or
// has not begun.
func (m *media) write(p ...rtcp.Packet) {
	if err := m.pc.WriteRTCP(p); err != nil && !ended(err) {
		m.session.log.Debug("send reports", "err", err)
	}
}

// report makes the sender report of what a receiver gets, nil if it has got
// nothing since the last one. The receiver puts audio and video of a participant
// together by it (RFC 3550 §6.4.1).
func (d *down) report(now time.Time) rtcp.Packet {
	o := d.bound.Load()
	if o == nil {
		return nil
	}
	from := d.sending()
	o.mu.Lock()
	move, news := o.move, o.news
	r := &rtcp.SenderReport{SSRC: o.ssrc, NTPTime: reports.NTP(now), PacketCount: o.packets, OctetCount: o.octets}
	o.news = false
	o.mu.Unlock()
	if from == nil || !news {
		return nil
	}
	timestamp, ok := from.session.media.timestamp(from, now)
	if !ok {
		return nil
	}
	r.RTPTime = timestamp + move
	return r
}
