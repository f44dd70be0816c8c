package peer

import (
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/pion/transport/v2"
	"github.com/pion/transport/v2/stdnet"
)

// A Bulk receives for many peers at little cost, so that a load generator is
// not what a load test measures. It owns their UDP sockets, looks at all of
// them a few hundred times a second and takes in batches what has come. RTP of
// the tracks that a peer knows is counted by what its header says in the clear
// and then forgotten: nobody decrypts it. All else goes the ordinary way.
//
//	socket ┐                        ┌─ RTP of a known track ─> counter
//	socket ┼─> Bulk, every 2 ms ────┤
//	socket ┘                        └─ STUN, DTLS, RTCP, TURN, new tracks ─> ICE
//
// So a track of such a peer tells loss and order but neither latency nor damage;
// a load test has a sample of ordinary peers beside them. A Bulk serves the
// paths over UDP and IPv4, and those through a TURN server's TCP or TLS port if
// Config.DialTURN is set: there a peer's own goroutine counts. On the other ones a
// peer with a Bulk is an ordinary peer.
type Bulk struct {
	net  transport.Net // shared: to list the network interfaces is dear
	poll *poller
}

// NewBulk returns a Bulk that serves sockets once it runs. The error is
// errors.ErrUnsupported on systems other than Linux.
func NewBulk() (*Bulk, error) {
	poll, err := newPoller()
	if err != nil {
		return nil, fmt.Errorf("make bulk receiver: %w", err)
	}
	std, err := stdnet.NewNet()
	if err != nil {
		_ = poll.close()
		return nil, fmt.Errorf("make bulk receiver: %w", err)
	}
	return &Bulk{net: std, poll: poll}, nil
}

// counts reports whether a peer of that configuration gets its sockets from its
// Bulk.
func (c *Config) counts() bool {
	return c.Bulk != nil && !c.IPv6 && (c.Path == UDP || c.Path == TURNUDP || c.DialTURN != nil && (c.Path == TURNTCP || c.Path == TURNTLS))
}

// A tally counts the packets of one peer's tracks.
type tally struct {
	window *Window

	mu    sync.Mutex // guards the following
	known map[uint32]*counter
}

func newTally(w *Window) *tally { return &tally{window: w, known: map[uint32]*counter{}} }

// take makes the packets of a track come here from now on.
func (t *tally) take(ssrc uint32) *counter {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := &counter{tally: t}
	t.known[ssrc] = c
	return c
}

// drop lets the packets of a track go the ordinary way again, unless another
// track has the SSRC by now.
func (t *tally) drop(ssrc uint32, c *counter) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.known[ssrc] == c {
		delete(t.known, ssrc)
	}
}

// count takes a datagram if it is RTP of a known track.
func (t *tally) count(datagram []byte) bool {
	packet := rtpIn(datagram)
	if packet == nil {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.known[binary.BigEndian.Uint32(packet[8:])]
	if c == nil {
		return false
	}
	c.add(binary.BigEndian.Uint16(packet[2:]), len(packet), t.window.marks())
	return true
}

// rtpIn returns the RTP packet of a datagram, nil if it holds none: by its first
// bytes (RFC 7983 section 7, RFC 5761 section 4), bare or in the ChannelData
// message of a TURN server (RFC 8656 section 12.4).
func rtpIn(b []byte) []byte {
	if len(b) > 4 && b[0]&0xf0 == 0x40 {
		n := int(binary.BigEndian.Uint16(b[2:]))
		b = b[4:]
		if n > len(b) {
			return nil
		}
		b = b[:n]
	}
	if len(b) < 12 || b[0]>>6 != 2 || b[1]&0x7f >= 64 && b[1]&0x7f < 96 {
		return nil
	}
	return b
}

// A counter judges the packets of one track by their sequence numbers.
type counter struct {
	tally *tally // whose mu guards the following
	meter
	missing int64  // numbers passed over while the window was open
	after   uint64 // packets that came when it had closed
}

// jump is how far sequence numbers may leap before it is another stream.
const jump = 2000

func (c *counter) add(number uint16, size int, measured bool) {
	c.Packets++
	c.Bytes += uint64(size)
	step := int16(number - uint16(c.LastSequence))
	s := stamp{source: c.source, sequence: c.LastSequence + uint32(int32(step))}
	if !c.started || step > jump || step < -jump {
		s = stamp{source: c.source + 1, sequence: uint32(number)}
	}
	before := c.Lost
	fresh := c.order(s)
	switch {
	case !fresh:
		c.Duplicates++
	case measured:
		c.Measured++
		c.missing += int64(c.Lost) - int64(before)
	case c.Measured > 0:
		c.after++
	}
}

// stats returns what has been counted.
func (c *counter) stats() TrackStats {
	c.tally.mu.Lock()
	defer c.tally.mu.Unlock()
	s := c.TrackStats
	s.Counted, s.Missing, s.After = true, uint64(max(c.missing, 0)), c.after
	return s
}
