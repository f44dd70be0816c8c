package sfu

import (
	"sync"
	"time"

	"github.com/pion/rtcp"

	"sallyport/sfu/internal/packetcache"
	"sallyport/sfu/internal/reports"
	"sallyport/sfu/internal/rtpheader"
	"sallyport/sfu/internal/srtp"
	"sallyport/sfu/internal/vp8"
)

// An outgoing is one SSRC that is sent to a participant. It alone encrypts under
// that SSRC. The publisher's reader writes to it, and who answers NACKs.
type outgoing struct {
	to     *media
	ssrc   uint32
	kind   uint8 // payload type
	level  uint8 // IDs of header extensions; 0 = not negotiated
	number uint8
	nack   bool // lost packets are sent again

	overhead int // bytes that encryption adds

	mu      sync.Mutex // guards the following
	seal    *srtp.Sealer
	log     packetcache.Log
	repair  repairs
	packets uint32 // for sender reports
	octets  uint32
	move    uint32        // what was last added to the publisher's timestamps
	news    bool          // something was sent since the last report
	trip    time.Duration // there and back, by the receiver's last report
}

// againAfter is how long a packet that was sent again is given, besides the way
// there and back and the queue on it: a receiver that asks sooner asks for what is
// still under way.
const againAfter = 100 * time.Millisecond

// maxTrip is the longest way there and back that is believed.
const maxTrip = 2 * time.Second

// A sending is a packet on its way out.
type sending struct {
	marker  bool
	padding bool
	seq     uint16
	time    uint32
	level   uint8
	leveled bool // the publisher's packet has a level: one that we made up would be the loudest there is
	payload []byte

	ref     packetcache.Ref // of the payload in a cache; 0 = it is not sent again
	layer   uint8           // whose cache
	picture uint16          // VP8's numbers in payload
	base    uint8
}

// probeRef stands for the payload of padding, which is always the same.
const probeRef = ^packetcache.Ref(0)

// header makes the header of a packet.
func (o *outgoing) header(x *sending, number uint16, numbered bool) rtpheader.Header {
	h := rtpheader.Header{Marker: x.marker, Padding: x.padding, Type: o.kind, Seq: x.seq, Time: x.time, SSRC: o.ssrc}
	if x.leveled {
		h.LevelID, h.Level = o.level, x.level
	}
	if numbered {
		h.NumberID, h.Number = o.number, number
	}
	return h
}

// numbered reports whether packets get a transport-wide number. It costs the
// receiver reports, so only who has a choice to make from them asks for it.
func (o *outgoing) numbered() bool { return o.number != 0 && o.to.path.on.Load() }

// write sends a packet. It reports whether it went out, as far as we know. It
// needs mu.
func (o *outgoing) write(out *outbox, w *way, x *sending) bool {
	h := o.header(x, 0, o.numbered())
	size := h.Length() + len(x.payload) + o.overhead
	if size > maxDatagram {
		return false
	}
	if h.NumberID != 0 {
		h.Number = o.to.path.send(o, x)
	}
	packet, err := o.seal.Seal(h.Append(out.reserve(w, size)[:0]), x.payload)
	if err != nil {
		out.commit(w, 0) // sent before, or too late to tell
		return false
	}
	out.commit(w, len(packet))
	o.packets++
	o.octets += uint32(len(x.payload))
	o.news = true
	if o.nack {
		o.repair.sent(x.seq, len(packet))
		s := packetcache.Sent{Ref: x.ref, Time: x.time, Seq: x.seq, Picture: x.picture, Base: x.base, Layer: x.layer, Marker: x.marker}
		s.Numbered, s.Number = h.NumberID != 0, h.Number
		o.log.Add(s)
	}
	return true
}

// answer sends again what a receiver misses, as far as it is still known and the
// budget allows. It returns how many packets the budget did not allow.
func (d *down) answer(nack *rtcp.TransportLayerNack) (refused int) {
	o := d.bound.Load()
	if o == nil || !o.nack {
		return 0
	}
	w := o.to.way.Load()
	if w == nil {
		return 0
	}
	now := time.Now()
	seqs := asked(nack)
	if d.holdAgain(seqs, now) {
		return 0
	}
	r := d.session.server.resend.get()
	defer d.session.server.resend.put(r)
	r.now, r.before = now, o.repeatBefore(now)
	for _, seq := range seqs {
		if d.repeat(r, o, w, seq).refused {
			refused++
		}
	}
	r.out.flush()
	return refused
}

// asked lists the packets that a NACK names, as many as can be known: it has room
// for five times that.
func asked(nack *rtcp.TransportLayerNack) (seqs []uint16) {
	for i := range nack.Nacks {
		if len(seqs) >= packetcache.Memory {
			break
		}
		seqs = append(seqs, nack.Nacks[i].PacketList()...)
	}
	return seqs
}

// repeatBefore is when a packet must have been sent again for the last time, if it
// is to be sent once more.
func (o *outgoing) repeatBefore(now time.Time) time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	return now.Add(-max(againAfter, o.trip+o.to.path.queue(now)))
}

// A repeated is what became of a packet that was asked for again.
type repeated struct {
	bytes   int  // that were sent
	refused bool // the budget did not allow it
}

// repeat sends one packet again, bit by bit as it was: it has the same number.
func (d *down) repeat(r *resender, o *outgoing, w *way, seq uint16) repeated {
	o.mu.Lock()
	defer o.mu.Unlock()
	s, ok := o.log.Find(seq)
	if !ok || s.Again.After(r.before) || o.repair.over(seq) {
		return repeated{}
	}
	x := sending{marker: s.Marker, seq: s.Seq, time: s.Time}
	if s.Ref == probeRef {
		x.padding, x.payload = true, padding
	} else if x.payload, ok = d.cache(s.Layer).Get(s.Ref, r.payload[:0]); !ok {
		return repeated{}
	}
	h := o.header(&x, s.Number, s.Numbered)
	size := h.Length() + len(x.payload) + o.overhead
	if !o.repair.allow(seq, size) {
		return repeated{refused: true}
	}
	if d.choice != nil && !x.padding {
		if v, ok := vp8.Parse(x.payload); ok {
			v.Rewrite(x.payload, s.Picture, s.Base)
		}
	}
	packet, err := o.seal.Repeat(h.Append(r.out.reserve(w, size)[:0]), x.payload)
	if err != nil {
		r.out.commit(w, 0)
		d.session.log.Debug("send packet again", "err", err)
		return repeated{}
	}
	r.out.commit(w, len(packet))
	o.log.Repeated(seq, r.now)
	o.packets++
	o.octets += uint32(len(x.payload))
	return repeated{bytes: len(packet)}
}

const (
	// repairShare is how much may be spent on retransmissions, as a share of what
	// is sent: more only feeds the queue that lost the packets. repairMost is how
	// many bytes of that can be saved up, repairFirst what a stream begins with. It
	// also bounds what a receiver can make us send that asks for everything again
	// and again.
	repairShare = 5 // a fifth
	repairMost  = 48 << 10
	repairFirst = 16 << 10
)

// repairs is the budget of retransmissions of one stream. Sequence numbers are
// those of the receiver.
type repairs struct {
	begun   bool
	newest  uint16 // highest sequence number sent
	floor   uint16 // nothing before is sent again
	floored bool
	left    int // bytes
}

// sent counts a packet that was sent for the first time.
func (r *repairs) sent(seq uint16, size int) {
	if !r.begun {
		r.begun, r.newest, r.left = true, seq-1, repairFirst
	}
	r.left = min(r.left+size/repairShare, repairMost)
	if int16(seq-r.newest) > 0 {
		r.newest = seq
		r.floored = r.floored && r.newest-r.floor < 1<<14 // before the numbers wrap
	}
}

// allow reports whether a packet may be sent again, and counts it.
func (r *repairs) allow(seq uint16, size int) bool {
	if !r.begun || r.left < size {
		return false
	}
	r.left -= size
	return true
}

// over reports whether a packet was given up: nothing is to be repaired.
func (r *repairs) over(seq uint16) bool { return r.floored && int16(seq-r.floor) < 0 }

// flush gives up what was sent before the next packet. That begins a key frame on
// which everything hangs, so there is a full budget for it.
func (r *repairs) flush() { r.floored, r.floor, r.left = r.begun, r.newest+1, repairMost }

// tripped notes how long it takes to the receiver and back (RFC 3550 §6.4.1).
func (o *outgoing) tripped(r *rtcp.ReceptionReport, now time.Time) {
	if r.SSRC != o.ssrc || r.LastSenderReport == 0 {
		return
	}
	units := uint32(reports.NTP(now)>>16) - r.LastSenderReport - r.Delay
	if trip := time.Duration(units) * time.Second >> 16; trip < maxTrip {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.trip = trip
	}
}
