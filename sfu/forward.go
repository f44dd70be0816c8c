package sfu

import (
	"time"

	"sallyport/sfu/internal/loudest"
	"sallyport/sfu/internal/packetcache"
	"sallyport/sfu/internal/rtpheader"
)

// cacheBytes is how many bytes of a video track are kept for retransmissions: a
// second of the fastest screen share.
const cacheBytes = 512 << 10

// A received is a packet of an up, decrypted, in the buffer of the reader that
// brought it.
type received struct {
	rtpheader.Packet
	at      time.Time
	size    int   // bytes with header
	level   uint8 // audio level as the extension has it (RFC 6464)
	leveled bool  // it has one
	ref     packetcache.Ref
}

// readLevel looks for the audio level, in the extension of that ID.
func (p *received) readLevel(id uint8) {
	if level := p.Extension(id); len(level) > 0 {
		p.level, p.leveled = level[0], true
	}
}

// take keeps a packet until all of its batch are there. media.mu is held.
func (u *up) take(r *reader, p received) {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch u.by {
	case nil:
		u.by = r
		r.atEnd(u)
	case r:
	default: // two readers at a time: the participant's path is changing
		u.forward(r.out, []received{p})
		return
	}
	u.run = append(u.run, p)
}

// endBatch implements endHook: it forwards what the batch has brought.
func (u *up) endBatch(r *reader) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.forward(r.out, u.run)
	u.run, u.by = u.run[:0], nil
}

// forward gives packets to the receivers, to each one all of them: neighbours with
// the same address can leave together. It needs mu.
func (u *up) forward(out *outbox, run []received) {
	c := u.class.Load()
	if c == nil {
		return
	}
	start := time.Now()
	if c.class == classVoice {
		run = u.listen(c.voice, run)
	} else if u.level != 0 { // of a screen's sound
		for i := range run {
			run[i].readLevel(u.level)
		}
	}
	if len(run) == 0 {
		return
	}
	var watched bool
	if e := u.layer.Load(); e != nil {
		watched = e.forward(out, run)
	} else if sinks := u.fan.watching(); len(sinks) > 0 {
		watched = true
		u.keep(run)
		for _, d := range sinks {
			d.forward(out, run)
		}
	}
	if watched {
		c.took.Observe(time.Since(start).Seconds() / float64(len(run)))
	}
}

// keep copies video for retransmissions.
func (u *up) keep(run []received) {
	if u.cache == nil {
		return
	}
	for i := range run {
		run[i].ref = u.cache.Put(run[i].Payload)
	}
}

// listen follows the voice: whether it speaks, and how loud. It returns the packets
// that are to be heard: none while the participant is muted, or while others are
// louder and the call has no place for all. Those left out leave no gap, or they
// would count as lost. It needs mu.
func (u *up) listen(voice *loudest.Voice, run []received) []received {
	if u.deaf.Swap(false) {
		u.voice.Reset()
		u.speaking = false // the mute has told
	}
	if !u.on.Load() {
		return nil
	}
	heard := run[:0]
	for _, p := range run {
		if p.readLevel(u.level); p.leveled {
			if speaking, changed := u.voice.Push(p.level&0x7F, p.at); changed {
				u.speaking = speaking
				u.tellVoice(speaking)
			}
		}
		if voice != nil && !voice.Heard(p.level&0x7F, p.at) {
			u.skipped++
			continue
		}
		p.Seq -= u.skipped
		heard = append(heard, p)
	}
	return heard
}
