package conformance

import (
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/stun"
)

// A roleRelay makes the guest behind it, which is and stays the controlling ICE
// agent, appear to the server as one that has turned controlled, as Chromium 144
// to 150 was reported to do when it answers an offer of the server. It rewrites
// the checks of both sides, sends further ones as browsers do all the time, and
// does on the guest's behalf what RFC 8445 §7.3.1.1 and §7.2.5.1 ask of the peer
// in a conflict.
//
//	guest (controlling) ── ICE-CONTROLLING ──> relay ── ICE-CONTROLLED, tie ──> server
//	guest (controlling) <── ICE-CONTROLLED ─── relay <── ICE-CONTROLLING ────── server, once it has switched
type roleRelay struct {
	*relay
	tie  uint64 // the tie-breaker it claims
	late bool   // its own checks are no conflict until the server has switched
	stop chan struct{}

	turned    atomic.Bool // the guest appears as controlled
	conflicts atomic.Int64
	rejected  atomic.Int64 // 487 from the server
	rejecting atomic.Int64 // 487 to the server
	switched  atomic.Int64 // signs that the server is in the controlling role

	probes   sync.Map     // the relay's own checks, by transaction ID
	answered atomic.Int64 // how many of them succeeded
	last     atomic.Int64 // when one did last, Unix nanoseconds
}

// checkEvery is the time between the relay's own checks.
const checkEvery = 500 * time.Millisecond

func newRoleRelay(t testing.TB, tie uint64) *roleRelay {
	r := &roleRelay{relay: newRelay(t), tie: tie, stop: make(chan struct{})}
	r.up, r.down = r.toTheServer, r.fromTheServer
	t.Cleanup(func() { close(r.stop) })
	return r
}

// turn makes the guest appear as controlled from now on.
func (r *roleRelay) turn() {
	r.turned.Store(true)
	r.last.Store(time.Now().UnixNano())
	go func() {
		tick := time.NewTicker(checkEvery)
		defer tick.Stop()
		for {
			select {
			case <-r.stop:
				return
			case <-tick.C:
				r.check()
			}
		}
	}()
}

// conflicting tells whether checks towards the server are those of a controlled
// agent.
func (r *roleRelay) conflicting() bool {
	return r.turned.Load() && (!r.late || r.switched.Load() > 0)
}

// deaf is the time since the server last answered one of the relay's checks: a
// browser gives the connection up when that grows.
func (r *roleRelay) deaf() time.Duration { return time.Since(time.Unix(0, r.last.Load())) }

func (r *roleRelay) String() string {
	return fmt.Sprintf("%d checks as controlled, %d times 487 from the server, %d to it, %d signs of it as controlling; %d own checks answered, the last %s ago",
		r.conflicts.Load(), r.rejected.Load(), r.rejecting.Load(), r.switched.Load(), r.answered.Load(), r.deaf().Round(time.Millisecond))
}

// check sends a connectivity check in the role that the guest appears to have.
func (r *roleRelay) check() {
	keys, role := r.keys.Load(), stun.AttrICEControlling
	if r.conflicting() {
		role = stun.AttrICEControlled
		r.conflicts.Add(1)
	}
	m, err := stun.Build(stun.TransactionID, stun.BindingRequest,
		stun.NewUsername(keys.server.ufrag+":"+keys.client.ufrag),
		stun.RawAttribute{Type: role, Value: binary.BigEndian.AppendUint64(nil, r.tie)},
		stun.RawAttribute{Type: stun.AttrPriority, Value: binary.BigEndian.AppendUint32(nil, 1845501695)},
		stun.NewShortTermIntegrity(keys.server.pwd), stun.Fingerprint)
	if err != nil {
		r.t.Errorf("build check: %v", err)
		return
	}
	r.probes.Store(m.TransactionID, true)
	r.toServer(m.Raw)
}

func (r *roleRelay) toTheServer(p []byte) []byte {
	m := message(p)
	if m == nil || m.Type != stun.BindingRequest || !r.conflicting() || !m.Contains(stun.AttrICEControlling) {
		return p
	}
	r.conflicts.Add(1)
	return rewrite(m, stun.AttrICEControlled, r.tie, r.keys.Load().server.pwd)
}

func (r *roleRelay) fromTheServer(p []byte) []byte {
	m := message(p)
	if m == nil {
		return p
	}
	switch {
	case m.Type == stun.BindingError:
		var code stun.ErrorCodeAttribute
		if code.GetFrom(m) == nil && code.Code == stun.CodeRoleConflict && r.turned.Load() {
			r.rejected.Add(1)
			if r.conflicting() {
				r.turned.Store(false) // the guest switches back and asks again
			} else {
				r.switched.Add(1) // the server is in the controlling role too: the guest stays controlled
			}
			return nil
		}
	case m.Type == stun.BindingSuccess:
		if _, own := r.probes.LoadAndDelete(m.TransactionID); own {
			r.answered.Add(1)
			r.last.Store(time.Now().UnixNano())
			return nil
		}
	case m.Type == stun.BindingRequest && r.turned.Load():
		return r.checked(m)
	}
	return p
}

// checked handles a check of the server while the guest appears as controlled.
func (r *roleRelay) checked(m *stun.Message) []byte {
	if m.Contains(stun.AttrICEControlling) {
		r.switched.Add(1)
		return rewrite(m, stun.AttrICEControlled, 0, r.keys.Load().client.pwd)
	}
	theirs, err := m.Get(stun.AttrICEControlled)
	if err != nil || len(theirs) != 8 {
		return m.Raw
	}
	if r.tie >= binary.BigEndian.Uint64(theirs) { // our side switches, to controlling
		r.turned.Store(false)
		return m.Raw
	}
	r.rejecting.Add(1)
	r.refuse(m)
	return nil
}

// refuse answers a check of the server with 487.
func (r *roleRelay) refuse(m *stun.Message) {
	e, err := stun.Build(m, stun.BindingError, stun.CodeRoleConflict,
		stun.NewShortTermIntegrity(r.keys.Load().client.pwd), stun.Fingerprint)
	if err != nil {
		r.t.Errorf("build 487: %v", err)
		return
	}
	r.toServer(e.Raw)
}

func message(p []byte) *stun.Message {
	if !stun.IsMessage(p) {
		return nil
	}
	m := &stun.Message{Raw: append([]byte(nil), p...)}
	if m.Decode() != nil {
		return nil
	}
	return m
}

// rewrite makes a check with another role, and seals it anew.
func rewrite(m *stun.Message, role stun.AttrType, tie uint64, password string) []byte {
	out := new(stun.Message)
	out.TransactionID, out.Type = m.TransactionID, m.Type
	out.WriteHeader()
	for _, a := range m.Attributes {
		switch a.Type {
		case stun.AttrICEControlling, stun.AttrICEControlled:
			out.Add(role, binary.BigEndian.AppendUint64(nil, tie))
		case stun.AttrUseCandidate, stun.AttrMessageIntegrity, stun.AttrFingerprint:
		default:
			out.Add(a.Type, a.Value)
		}
	}
	if stun.NewShortTermIntegrity(password).AddTo(out) != nil || stun.Fingerprint.AddTo(out) != nil {
		return m.Raw
	}
	return out.Raw
}
