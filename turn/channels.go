package turn

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"time"
)

// bindings are the channels of one allocation as those see them who move media
// past pion/turn. They are replaced, never modified.
type bindings struct {
	client *client
	all    []binding
}

// A binding is a channel that pion has agreed to. Ours ends a little before
// pion's: what comes in between goes to pion.
type binding struct {
	number uint16
	peer   netip.AddrPort
	until  time.Time
}

// publish tells everybody of the channels of an allocation.
func (r *relay) publish(to *client, channels map[uint16]channel) {
	b := &bindings{client: to, all: make([]binding, 0, len(channels))}
	for number, ch := range channels {
		b.all = append(b.all, binding{number: number, peer: ch.peer, until: ch.until})
	}
	r.bound.Store(b)
	select {
	case <-r.done:
		r.bound.Store(nil) // Close may have done so just before
	default:
	}
}

// to returns the living channel to a peer, nil if there is none.
func (b *bindings) to(peer netip.AddrPort) *binding {
	for i := range b.all {
		if c := &b.all[i]; c.peer == peer {
			return c.living()
		}
	}
	return nil
}

// numbered returns the living channel of a number, nil if there is none.
func (b *bindings) numbered(n uint16) *binding {
	for i := range b.all {
		if c := &b.all[i]; c.number == n {
			return c.living()
		}
	}
	return nil
}

func (c *binding) living() *binding {
	if time.Now().Before(c.until) {
		return c
	}
	return nil
}

// straight sends to the client what comes from the SFU under an alias, unless
// pion has to: without a channel, or while it has something that came before.
// It may wait in a sheaf, if there is one.
func (r *relay) straight(b []byte, a *alias, late *sheaf) bool {
	if a == nil || r.slow.Load() > 0 {
		return false
	}
	bound := r.bound.Load()
	if bound == nil {
		return false
	}
	c := bound.to(a.at)
	if c == nil {
		return false
	}
	if r.down != nil && !r.down.AllowN(time.Now(), len(b)) {
		r.metrics.drops.bitrate.Inc()
		return true
	}
	r.flow.down(len(b))
	p := newPacket()
	frame := appendChannelData(p.data[:0], c.number, b)
	if late != nil {
		late.put(bound.client, frame)
	} else {
		bound.client.source.send(frame)
	}
	p.release()
	return true
}

// A haul is media that one client has sent and one goroutine has read at once, on
// its way to the SFU.
type haul struct {
	relay   *relay
	alias   *alias // whom the client means
	packets [][]byte
}

// haulage is how many packets make a full haul.
const haulage = 32

var hauls = sync.Pool{New: func() any { return &haul{packets: make([][]byte, 0, haulage)} }}

func newHaul() *haul { return hauls.Get().(*haul) }

// add takes ChannelData from a client, unless pion has to: without a living
// channel to the SFU, or while it has something that came before. What has been
// added before for somebody else is delivered. frame must stay until deliver,
// which may change it.
func (h *haul) add(c *client, frame []byte) bool {
	r := c.relay.Load()
	if r == nil || c.slow.Load() > 0 {
		return false
	}
	bound := r.bound.Load()
	if bound == nil {
		return false
	}
	ch := bound.numbered(binary.BigEndian.Uint16(frame))
	if ch == nil {
		return false
	}
	a := r.hairpin.alias(ch.peer)
	if a == nil || !r.peers.sfu {
		return false
	}
	end := channelHeader + int(binary.BigEndian.Uint16(frame[2:]))
	data := frame[channelHeader:end:end]
	if r.up != nil && !r.up.AllowN(time.Now(), len(data)) {
		r.metrics.drops.bitrate.Inc()
		return true
	}
	if h.relay != r || h.alias != a || len(h.packets) == haulage {
		h.deliver()
		h.relay, h.alias = r, a
	}
	h.packets = append(h.packets, data)
	return true
}

// deliver gives the SFU what has been added.
func (h *haul) deliver() {
	if len(h.packets) > 0 {
		h.relay.toSFU(h.packets, h.alias)
	}
	h.relay, h.alias = nil, nil
	clear(h.packets)
	h.packets = h.packets[:0]
}

// release delivers and gives h back, if it is one.
func (h *haul) release() {
	if h != nil {
		h.deliver()
		hauls.Put(h)
	}
}
