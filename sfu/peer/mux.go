package peer

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"sallyport/sfu/wire"
)

// A Mux shares one Link among the peers of one installation: it hands each
// envelope to the peer whose session it names.
type Mux struct {
	link *Link
	rest func(wire.Envelope)

	mu    sync.RWMutex // guards the following
	peers map[string]*Peer
}

// DialMux connects as Dial does. c.Handle gets the envelopes that belong to no
// peer of the mux, such as hello.
func DialMux(ctx context.Context, c LinkConfig) (*Mux, error) {
	m := &Mux{rest: c.Handle, peers: map[string]*Peer{}}
	c.Handle = m.handle
	link, err := Dial(ctx, c)
	if err != nil {
		return nil, err
	}
	m.link = link
	return m, nil
}

// Link returns the shared link, to send what peers do not.
func (m *Mux) Link() *Link { return m.link }

// Close closes the link. Peers keep their media until they are closed.
func (m *Mux) Close() error { return m.link.Close() }

func (m *Mux) handle(e wire.Envelope) {
	session := e.Session
	if e.Type == wire.TypeRTC || e.Type == wire.TypeVAD {
		session = e.Message.Session
	}
	m.mu.RLock()
	p := m.peers[session]
	m.mu.RUnlock()
	switch {
	case p != nil:
		p.deliver(event{envelope: &e})
	case m.rest != nil:
		m.rest(e)
	}
}

var errDuplicate = errors.New("a peer of this session exists")

func (m *Mux) add(p *Peer) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.peers[p.config.Session] != nil {
		return fmt.Errorf("join session %s: %w", p.config.Session, errDuplicate)
	}
	m.peers[p.config.Session] = p
	return nil
}

func (m *Mux) remove(p *Peer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.peers, p.config.Session)
}
