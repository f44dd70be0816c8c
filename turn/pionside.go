package turn

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"net"
	"time"

	"github.com/pion/stun"
	"github.com/pion/turn/v2"
)

const (
	innerName   = "sallyport" // user and realm between the guard and pion
	nonceReuse  = 10 * time.Minute
	pionPatient = 3599 * time.Second // the longest lifetime pion accepts
)

var errNoTCPRelay = errors.New("allocate: no TCP relays")

// pionSide is the guard's end of the conversation with pion/turn: one request
// at a time, handed out by ReadFrom and answered before the next ReadFrom.
//
// pion insists on authentication, so there is a credential nobody else knows
// and a nonce, got from pion by asking without one.
type pionSide struct {
	key     []byte
	nonce   []byte
	nonceAt time.Time // wall clock, as pion counts
	inner   stun.Message
	counter uint64

	pending *exchange
	priming bool // pending waits for a nonce
	agreed  bool // pion's answer to pending was a success

	offered *relay // the relay of the Allocate that is pending
}

// An exchange is one request to pion on behalf of a client.
type exchange struct {
	client *client
	method stun.Method
	attrs  []stun.Setter
	done   func(agreed bool) // called on the guard's goroutine
}

func newInnerKey() []byte {
	key := make([]byte, 16)
	_, _ = rand.Read(key)
	return key
}

// ask starts an exchange and returns what pion shall read, in b.
func (p *pionSide) ask(e *exchange, b []byte) (int, net.Addr) {
	p.pending, p.agreed = e, false
	age := time.Now().Round(0).Sub(p.nonceAt)
	if p.nonce != nil && age >= 0 && age < nonceReuse {
		return p.submit(b)
	}
	p.priming, p.nonce, p.nonceAt = true, nil, time.Now().Round(0)
	p.start(stun.MethodRefresh)
	return copy(b, p.inner.Raw), e.client.virtual
}

// submit writes the pending request.
func (p *pionSide) submit(b []byte) (int, net.Addr) {
	e := p.pending
	p.start(e.method)
	for _, a := range append(e.attrs,
		stun.NewUsername(innerName), stun.NewRealm(innerName), stun.Nonce(p.nonce), stun.MessageIntegrity(p.key)) {
		if err := a.AddTo(&p.inner); err != nil {
			return p.end(false)
		}
	}
	if len(p.inner.Raw) > maxDatagram {
		return p.end(false) // hundreds of permissions at once
	}
	return copy(b, p.inner.Raw), e.client.virtual
}

func (p *pionSide) start(m stun.Method) {
	p.counter++
	p.inner.Reset()
	binary.BigEndian.PutUint64(p.inner.TransactionID[:], p.counter)
	p.inner.Type = stun.NewType(m, stun.ClassRequest)
	p.inner.WriteHeader()
}

// answered reads pion's answer. Called by WriteTo while pion handles our
// request.
func (p *pionSide) answered(b []byte) {
	m := stun.Message{Raw: append([]byte(nil), b...)}
	if m.Decode() != nil {
		return
	}
	if p.priming {
		if nonce, err := m.Get(stun.AttrNonce); err == nil {
			p.nonce = nonce
		}
		return
	}
	p.agreed = m.Type.Class == stun.ClassSuccessResponse
}

// resume is called when pion has handled what it read last. It returns the
// next thing to read, if the exchange is not over yet.
func (p *pionSide) resume(b []byte) (int, net.Addr) {
	switch {
	case p.pending == nil:
		return 0, nil
	case !p.priming:
		return p.end(p.agreed)
	}
	p.priming = false
	if p.nonce == nil {
		return p.end(false)
	}
	return p.submit(b)
}

// end finishes the exchange. A relay that pion did not take is given up.
func (p *pionSide) end(agreed bool) (int, net.Addr) {
	e := p.pending
	p.pending = nil
	if p.offered != nil {
		p.offered.abandon()
		p.offered, agreed = nil, false
	}
	e.done(agreed)
	return 0, nil
}

func (p *pionSide) close() {
	if p.offered != nil {
		p.offered.abandon()
		p.offered = nil
	}
}

// The rest makes pionSide a turn.RelayAddressGenerator.

// Validate has nothing to find.
func (p *pionSide) Validate() error { return nil }

// AllocatePacketConn hands over the relay the guard has made.
func (p *pionSide) AllocatePacketConn(string, int) (net.PacketConn, net.Addr, error) {
	r := p.offered
	if r == nil {
		return nil, nil, errNoLabel
	}
	p.offered = nil
	return r, r.addr, nil
}

// AllocateConn refuses: RFC 6062 is not for relays to one UDP socket.
func (p *pionSide) AllocateConn(string, int) (net.Conn, net.Addr, error) {
	return nil, nil, errNoTCPRelay
}

// newPion starts pion/turn over the shards. It runs until its Close, which
// closes the shards.
func (s *Server) newPion(all []*shard, key []byte) (*turn.Server, error) {
	c := turn.ServerConfig{
		Realm:         innerName,
		AuthHandler:   func(string, string, net.Addr) ([]byte, bool) { return key, true },
		LoggerFactory: newPionLog(s.log),
	}
	for _, sh := range all {
		c.PacketConnConfigs = append(c.PacketConnConfigs, turn.PacketConnConfig{
			PacketConn:            sh,
			RelayAddressGenerator: &sh.guard.pion,
			PermissionHandler: func(_ net.Addr, ip net.IP) bool { // the guard has checked; a second wall
				return s.allowedIP(addrPort(&net.UDPAddr{IP: ip}).Addr())
			},
		})
	}
	return turn.NewServer(c)
}
