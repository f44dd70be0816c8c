package turn

import (
	"hash/maphash"
	"net"
	"sync"
	"time"
)

const (
	mediaQueue    = 1024 // packets of clients with an allocation
	strangerQueue = 256  // packets of all others; a flood of them must not cost media
	eventQueue    = 64

	// One packet in strangerShare may be a stranger's although media waits:
	// who wants in must not be starved by those who are.
	strangerShare = 16
)

// An event tells a shard's guard something that is not a packet.
type event struct {
	client *client
	what   happening
}

type happening uint8

const (
	connectionGone    happening = iota // the stream has ended
	allocationExpired                  // a timer says so; the guard checks
)

// shards spreads clients over several read loops of pion/turn.
type shards struct {
	all  []*shard
	seed maphash.Seed // ours alone, so that nobody can aim at one shard
}

// of returns the shard of a source: always the same one.
func (s *shards) of(from source) *shard {
	return s.all[maphash.Comparable(s.seed, from)%uint64(len(s.all))]
}

// A shard is the net.PacketConn from which one read loop of pion/turn takes
// its packets. The guard runs inside ReadFrom and decides what pion sees; for
// pion handles one packet completely, answer included, before it reads the
// next, the guard needs no lock.
type shard struct {
	local    *net.UDPAddr
	media    queue
	stranger queue
	events   chan event
	done     chan struct{}
	once     sync.Once
	drops    *drops
	guard    *guard
	ended    func() // called when ReadFrom has failed

	served uint    // packets, for fairness; the guard's goroutine only
	busy   *client // whose packet pion has; likewise

	mu       sync.RWMutex       // guards the following
	byID     map[uint64]*client // those with an allocation
	bySource map[source]*client // those of them on UDP
}

func newShard(id uint64, d *drops) *shard {
	return &shard{
		local: newClient(id, source{}, overUDP).virtual,
		media: newQueue(mediaQueue), stranger: newQueue(strangerQueue),
		events: make(chan event, eventQueue), done: make(chan struct{}), drops: d,
		byID: make(map[uint64]*client), bySource: make(map[source]*client),
	}
}

// client returns the client of a UDP source, nil for a stranger.
func (s *shard) client(from source) *client {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.bySource[from]
}

// datagram takes a UDP packet from a socket's goroutine. It never blocks. Nobody
// with an allocation may have more waiting than there is room left: so there is
// always some, and those who want too much get the same.
func (s *shard) datagram(p *packet) {
	q, fair := s.stranger, true
	if p.client != nil {
		q = s.media
		fair = int(p.client.slow.Add(1)) <= cap(q.packets)-len(q.packets)
	}
	if fair {
		select {
		case q.packets <- p:
			return
		default:
		}
	}
	if p.client != nil {
		p.client.slow.Add(-1)
	}
	s.drops.shard.Inc()
	p.release()
}

// frame takes a packet from a stream's goroutine. It waits for room: TCP tells
// the sender. It returns false at shutdown.
func (s *shard) frame(p *packet) bool {
	q := s.stranger
	if p.client.relay.Load() != nil {
		q = s.media
	}
	p.client.slow.Add(1)
	if !q.put(p, s.done) {
		p.release()
		return false
	}
	return true
}

// post queues an event; at shutdown it is lost.
func (s *shard) post(e event) {
	select {
	case s.events <- e:
	case <-s.done:
	}
}

// ReadFrom gives pion/turn its next packet. It fails only at shutdown, because
// an error ends the read loop.
func (s *shard) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		if n, from := s.guard.resume(b); n > 0 {
			return n, from, nil
		}
		if s.busy != nil {
			s.busy.slow.Add(-1)
			s.busy = nil
		}
		e, p, ok := s.wait()
		if !ok {
			s.guard.close()
			s.ended()
			return 0, nil, net.ErrClosed
		}
		var n int
		var from net.Addr
		if p != nil {
			s.busy = p.client
			n, from = s.guard.packet(p, b)
			p.release()
		} else {
			n, from = s.guard.event(e, b)
		}
		if n > 0 {
			return n, from, nil
		}
	}
}

// wait returns the next event, else the next packet of a client with an
// allocation, else (or every so often) one of a stranger; false at shutdown.
func (s *shard) wait() (event, *packet, bool) {
	select {
	case <-s.done:
		return event{}, nil, false
	case e := <-s.events:
		return e, nil, true
	default:
	}
	first := s.media
	if s.served++; s.served%strangerShare == 0 {
		first = s.stranger
	}
	select {
	case p := <-first.packets:
		return event{}, p.taken(), true
	default:
	}
	select {
	case <-s.done:
		return event{}, nil, false
	case e := <-s.events:
		return e, nil, true
	case p := <-s.media.packets:
		return event{}, p.taken(), true
	case p := <-s.stranger.packets:
		return event{}, p.taken(), true
	}
}

// WriteTo takes what pion/turn sends: answers to the guard's requests, on the
// guard's goroutine, and data for clients, from the allocations' goroutines.
func (s *shard) WriteTo(b []byte, to net.Addr) (int, error) {
	if isResponse(b) {
		s.guard.answered(b)
		return len(b), nil
	}
	s.mu.RLock()
	c := s.byID[clientID(to)]
	s.mu.RUnlock()
	if c != nil {
		c.source.send(b)
	}
	return len(b), nil
}

// add makes c known to the goroutines that feed the shard and that send.
func (s *shard) add(c *client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.byID[c.id] = c
	if c.stream == nil {
		s.bySource[c.source] = c
	}
}

func (s *shard) remove(c *client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byID, c.id)
	if c.stream == nil {
		delete(s.bySource, c.source)
	}
}

// Close ends ReadFrom, and with it pion's read loop and its allocations.
func (s *shard) Close() error {
	s.once.Do(func() { close(s.done) })
	return nil
}

func (s *shard) LocalAddr() net.Addr              { return s.local }
func (s *shard) SetDeadline(time.Time) error      { return nil }
func (s *shard) SetReadDeadline(time.Time) error  { return nil }
func (s *shard) SetWriteDeadline(time.Time) error { return nil }
