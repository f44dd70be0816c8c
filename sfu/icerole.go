package sfu

import (
	"encoding/binary"
	"math"
	"sync"
	"time"

	"github.com/pion/ice/v2"
	"github.com/pion/stun"
)

// ICE role conflicts (RFC 8445 §7.2.5.1 and §7.3.1.1). The agent of pion/ice
// notices a conflict only in a request that it receives: it then switches, or
// answers 487. A 487 to its own check it ignores, and if the other side ignores
// ours, both keep the same role until one gives the connection up.
//
// The mux sees every check that comes and goes, so it does the rest:
//
//	our check ──────────────────> remembered: transaction, role
//	487 to it <──────────────────  integrity verified; the agent is given a
//	                              request of its own role that it must yield to
//	our 487 ────────────────────> counted; when the other side goes on all the
//	                              same, we are the ones who yield, as above
//
// What the agent answers to a request that nobody sent goes nowhere.

const (
	// checksKept is how many of our latest checks on one connection a 487 may
	// answer: those of 200 ms with every remote candidate a session may have.
	checksKept = 64
	// A peer that is still refused yieldAfter the first of at least yieldCount
	// 487s does not know them, or does not get them: it has had several round
	// trips to switch. If it switches after all at the same moment, there is
	// one more conflict, which the tie-breakers settle. Some agents give a pair
	// up after 1.4 s. After refusalMemory without a 487 the count starts anew.
	yieldAfter    = time.Second
	yieldCount    = 2
	refusalMemory = 15 * time.Second
)

// STUN message types and attributes the watch reads (RFC 8489 §18, RFC 8445 §16).
const (
	stunHeader = 20
	stunCookie = 0x2112A442

	typeRequest = 0x0001 // Binding
	typeSuccess = 0x0101
	typeError   = 0x0111

	attrErrorCode = 0x0009

	codeRoleConflict = 487
)

// An iceRole is the type of the STUN attribute that claims the role; 0 is none.
type iceRole uint16

const (
	controlled  = iceRole(stun.AttrICEControlled)
	controlling = iceRole(stun.AttrICEControlling)
)

// A roleWatch resolves the role conflicts of one ICE agent on one connection of
// the mux. Its methods may be called from any goroutine and take datagrams of
// any kind; those that are not STUN cost a comparison.
type roleWatch struct {
	keys  *iceKeys
	ufrag string // the local one

	mu      sync.Mutex // guards the following
	sent    []sentCheck
	oldest  int     // in sent, once that is full
	role    iceRole // of our latest check
	refused int     // 487s we have sent since the last success
	first   time.Time
	last    time.Time
}

// A sentCheck is a Binding request of ours, or one that we made up for the agent.
type sentCheck struct {
	id     [stun.TransactionIDSize]byte
	role   iceRole // 0: no longer of interest
	forged bool    // made up: its answer goes nowhere
}

// isSTUN tells STUN from DTLS, RTP and RTCP (RFC 7983).
func isSTUN(p []byte) bool {
	return len(p) >= stunHeader && p[0] < 2 && binary.BigEndian.Uint32(p[4:]) == stunCookie
}

// outgoing looks at what the agent sends. It returns whether that may go, and a
// request to give to the agent, if one is due.
func (w *roleWatch) outgoing(p []byte) (pass bool, request []byte) {
	if !isSTUN(p) {
		return true, nil
	}
	switch binary.BigEndian.Uint16(p) {
	case typeRequest:
		w.checked(p)
	case typeSuccess, typeError:
		return w.answered(p)
	}
	return true, nil
}

// checked remembers a check of ours.
func (w *roleWatch) checked(p []byte) {
	role := iceRole(0)
	for _, r := range [...]iceRole{controlled, controlling} {
		if _, ok := stunAttribute(p, uint16(r)); ok {
			role = r
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.role = role
	w.remember(sentCheck{id: transaction(p), role: role})
}

// answered looks at an answer of ours: to a check of the other side, or to a
// request that was made up.
func (w *roleWatch) answered(p []byte) (pass bool, request []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if c := w.find(p); c != nil && c.forged {
		return false, nil
	}
	if errorCode(p) != codeRoleConflict {
		w.refused = 0
		return true, nil
	}
	now := time.Now()
	if w.refused == 0 || now.Sub(w.last) > refusalMemory {
		w.refused, w.first = 0, now
	}
	w.last = now
	w.refused++
	if w.refused < yieldCount || now.Sub(w.first) < yieldAfter {
		return true, nil
	}
	w.refused = 0
	return true, w.yield(w.role)
}

// isBindingError tells the answers that refusal wants to see.
func isBindingError(p []byte) bool {
	return isSTUN(p) && binary.BigEndian.Uint16(p) == typeError
}

// refusal looks at an error the other side sent. It returns the request to give
// to the agent, from the same remote address, if that is a 487 to one of our
// checks under the password of the other side, and nil otherwise.
func (w *roleWatch) refusal(p []byte) []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.find(p) // first of all: who has not seen our check cannot name it
	if c == nil || c.role == 0 || errorCode(p) != codeRoleConflict {
		return nil
	}
	pair, ok := w.keys.get(w.ufrag)
	if !ok {
		return nil
	}
	m := &stun.Message{Raw: append([]byte(nil), p...)}
	if m.Decode() != nil || stun.NewShortTermIntegrity(pair.remote.password).Check(m) != nil {
		return nil
	}
	role := c.role
	c.role = 0 // a repetition says nothing new
	return w.yield(role)
}

// yield makes a request that turns an agent of the given role into the other
// one (RFC 8445 §7.3.1.1): it claims the same role, with the tie-breaker that
// makes the agent switch. An agent that has switched already takes it for an
// ordinary check. nil if the credentials are not known.
func (w *roleWatch) yield(role iceRole) []byte {
	pair, ok := w.keys.get(w.ufrag)
	if !ok || role == 0 {
		return nil
	}
	var claim stun.Setter = ice.AttrControlled(0) // a controlled agent switches if its own is at least that
	if role == controlling {
		claim = ice.AttrControlling(math.MaxUint64) // a controlling one if its own is less
	}
	m, err := stun.Build(stun.BindingRequest, stun.TransactionID,
		stun.NewUsername(pair.local.ufrag+":"+pair.remote.ufrag),
		claim, ice.PriorityAttr(1),
		stun.NewShortTermIntegrity(pair.local.password), stun.Fingerprint)
	if err != nil {
		return nil // credentials too long for STUN: no check can succeed either
	}
	w.remember(sentCheck{id: m.TransactionID, forged: true})
	return m.Raw
}

// remember puts c in the place of the oldest check. It needs w.mu.
func (w *roleWatch) remember(c sentCheck) {
	if len(w.sent) < checksKept {
		w.sent = append(w.sent, c)
		return
	}
	w.sent[w.oldest] = c
	w.oldest = (w.oldest + 1) % checksKept
}

// find returns the check of a message's transaction, or nil. It needs w.mu.
func (w *roleWatch) find(p []byte) *sentCheck {
	id := transaction(p)
	for i := range w.sent {
		if w.sent[i].id == id {
			return &w.sent[i]
		}
	}
	return nil
}

// transaction is the transaction ID of a STUN message.
func transaction(p []byte) [stun.TransactionIDSize]byte {
	return [stun.TransactionIDSize]byte(p[8:stunHeader])
}

// errorCode is the code of a STUN error response, 0 if there is none.
func errorCode(p []byte) int {
	v, ok := stunAttribute(p, attrErrorCode)
	if !ok || len(v) < 4 {
		return 0
	}
	return int(v[2]&7)*100 + int(v[3])
}

// stunAttribute returns the value of the first attribute of a kind in a message
// for which isSTUN holds. It allocates nothing.
func stunAttribute(p []byte, kind uint16) ([]byte, bool) {
	size := int(binary.BigEndian.Uint16(p[2:]))
	if size > len(p)-stunHeader {
		return nil, false
	}
	for rest := p[stunHeader : stunHeader+size]; len(rest) >= 4; {
		k, n := binary.BigEndian.Uint16(rest), int(binary.BigEndian.Uint16(rest[2:]))
		rest = rest[4:]
		if n > len(rest) {
			return nil, false
		}
		if k == kind {
			return rest[:n], true
		}
		rest = rest[min((n+3)&^3, len(rest)):]
	}
	return nil, false
}
