package main

import (
	"time"

	"sallyport/sfu/peer"
)

// report gathers the counters of all participants.
func (l *load) report(m measurement) *Report {
	r := &Report{
		Target: l.server.url, Load: l.shape().name, Path: l.path.String(), SRTP: l.srtp.String(),
		Calls: l.calls, Users: l.users, Unmuted: l.unmuted, Screen: l.screen, Camera: l.camera, Seconds: m.took.Seconds(),
		Joins:   Joins{Wanted: l.calls * l.users, Failed: int(l.failed.Load()), Errors: l.errors},
		Tracks:  Tracks{Wanted: m.wanted, Got: l.tracks()},
		Packets: l.packets(), Paths: map[string]int{},
	}
	var joins, latency, jitter, rtt peer.Histogram
	l.each(func(p *peer.Peer) {
		joins.Add(p.JoinTime())
		rtt.Add(p.RTT())
		r.Paths[pathOf(p)]++
		for _, t := range p.Tracks() {
			s := t.Stats()
			latency.Merge(&s.Latency)
			if s.Measured > 0 && !s.Counted {
				jitter.Add(s.Jitter)
			}
			r.Video.add(&s, m.ended)
		}
	})
	r.Joins.TimeUS, r.RTTUS, r.LatencyUS, r.JitterUS = spread(&joins), spread(&rtt), spread(&latency), spread(&jitter)
	if r.Packets.Expected > 0 {
		r.Packets.Loss = 100 * (1 - float64(r.Packets.Received)/float64(r.Packets.Expected))
	}
	r.Packets.PerSecond = float64(r.Packets.Received) / r.Seconds
	r.LoadCPU = percent(m.self[1].cpu-m.self[0].cpu, m.took)
	if len(l.server.pids) > 0 {
		r.Server = usageOf(m, r)
	}
	return r
}

// longFreeze is how long a picture must have stood when the window closed to
// count as frozen: no source is that slow.
const longFreeze = time.Second

// add takes in a track of which pictures are known.
func (v *Video) add(s *peer.TrackStats, ended time.Time) {
	if s.LastPicture == 0 || s.Measured == 0 {
		return
	}
	v.Tracks++
	if since := ended.Sub(time.Unix(0, s.LastPicture)); since > longFreeze { // and has not moved again
		s.Freezes++
		s.Frozen += since
	}
	v.Freezes += s.Freezes
	v.Seconds += s.Frozen.Seconds()
	if s.Freezes > 0 {
		v.Frozen++
	}
}

// packets counts what was sent while the window was open and what came of it.
func (l *load) packets() Packets {
	var n Packets
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, call := range l.rooms {
		sent := map[publication]uint64{}
		for _, p := range call {
			for _, kind := range kinds {
				if measured := p.Sent(kind).Measured; measured > 0 {
					sent[publication{p.Session(), kind}] = measured
					n.Sent += measured
				}
			}
		}
		for _, p := range call {
			n.receive(p, sent)
		}
	}
	return n
}

// A publication is what one participant sends of one kind.
type publication struct{ session, kind string }

// receive adds what one participant should have got of what was sent in its
// call, and what it got.
func (n *Packets) receive(p *peer.Peer, sent map[publication]uint64) {
	due := map[publication]uint64{}
	for what, measured := range sent {
		if what.session != p.Session() {
			due[what] = measured
		}
	}
	for _, t := range p.Tracks() {
		s := t.Stats()
		n.Duplicates += s.Duplicates
		n.Late += s.Late
		n.Foreign += s.Foreign
		if !s.Counted {
			n.Received += s.Measured
			n.Verified += s.Measured
			continue
		}
		// As many as were on their way when the window opened came too much, and
		// as many are still to come when it closes.
		all := due[publication{t.Sender, t.Type}]
		n.Received += min(s.Measured+s.After, all-min(all, s.Missing))
	}
	for _, measured := range due {
		n.Expected += measured
	}
}
