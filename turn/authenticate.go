package turn

import (
	"net"
	"time"

	"github.com/pion/stun"
)

// authenticate checks r by the long-term credential mechanism of RFC 8489
// §9.2.4. If it returns false the client has its answer, or none.
func (g *guard) authenticate(r *request) bool {
	now := time.Now()
	if !r.signed {
		return g.challenge(r, stun.CodeUnauthorized, "challenge")
	}
	username, hasUsername := r.attrs.get(stun.AttrUsername)
	nonce, hasNonce := r.attrs.get(stun.AttrNonce)
	if !hasUsername || !hasNonce || !r.attrs.has(stun.AttrRealm) {
		g.count(r, "malformed")
		if g.mayAnswer(r) {
			g.fail(r, stun.CodeBadRequest)
		}
		return false
	}
	if !g.server.nonces.valid(nonce, r.from.addr, now) {
		return g.challenge(r, stun.CodeStaleNonce, "stale")
	}
	key := g.keyOf(r, string(username))
	if key == nil {
		return g.challenge(r, stun.CodeUnauthorized, "bad")
	}
	expiry, user, _ := splitUsername(string(username))
	// A credential is good for starting, then the allocation keeps it: calls
	// outlast their credentials.
	if r.method == stun.MethodAllocate && r.allocation() == nil && !now.Before(expiry) {
		return g.challenge(r, stun.CodeUnauthorized, "expired")
	}
	r.username, r.user, r.key = string(username), user, key
	g.count(r, "ok")
	return true
}

// keyOf returns the key that signed r, nil if it is none of username's.
func (g *guard) keyOf(r *request, username string) []byte {
	if a := r.allocation(); a != nil && a.username == username {
		if stun.MessageIntegrity(a.key).Check(&g.in) == nil {
			return a.key
		}
		return nil
	}
	if _, _, ok := splitUsername(username); !ok {
		return nil
	}
	for _, secret := range *g.server.secrets.Load() {
		key := longTermKey(username, g.server.realm, passwordOf(secret, username))
		if stun.MessageIntegrity(key).Check(&g.in) == nil {
			return key
		}
	}
	return nil
}

// challenge answers with realm and nonce, so that the client can try (again).
// It returns false.
func (g *guard) challenge(r *request, code stun.ErrorCode, result string) bool {
	g.count(r, result)
	if g.mayAnswer(r) {
		nonce := g.server.nonces.issue(r.from.addr, time.Now())
		g.reply(r, stun.ClassErrorResponse, stun.ErrorCodeAttribute{Code: code}, stun.Nonce(nonce), stun.NewRealm(g.server.realm))
	}
	return false
}

// unproven tells whether the source of r may be forged: it is UDP, and r is not
// authentic. That somebody at this address holds an allocation proves nothing:
// whoever knows the address can forge it.
func (r *request) unproven() bool {
	return r.key == nil && (r.client == nil || r.client.stream == nil)
}

// mayAnswer tells whether r, not authentic, may cause a packet: always over
// TCP, within limits over UDP.
func (g *guard) mayAnswer(r *request) bool {
	if !r.unproven() || g.server.challenges.allow(r.from.addr.Addr(), time.Now()) {
		return true
	}
	g.server.metrics.drops.challenge.Inc()
	return false
}

// fail answers r with an error, signed if r was. It returns nothing for pion.
func (g *guard) fail(r *request, code stun.ErrorCode, more ...stun.Setter) (int, net.Addr) {
	g.reply(r, stun.ClassErrorResponse, append([]stun.Setter{code}, more...)...)
	return 0, nil
}

// reply sends an answer to r.
func (g *guard) reply(r *request, class stun.MessageClass, attrs ...stun.Setter) {
	m := &g.out
	m.Reset()
	m.Type = stun.NewType(r.method, class)
	m.TransactionID = r.transaction
	m.WriteHeader()
	if r.key != nil {
		attrs = append(attrs, stun.MessageIntegrity(r.key))
	}
	if r.fingerprint {
		attrs = append(attrs, stun.Fingerprint)
	}
	for _, a := range attrs {
		if err := a.AddTo(m); err != nil {
			g.server.log.Error("build answer", "err", err)
			return
		}
	}
	if r.unproven() && len(m.Raw) > maxAmplification*r.size {
		g.server.metrics.drops.amplified.Inc()
		return
	}
	r.from.send(m.Raw)
}

func (g *guard) count(r *request, result string) {
	g.server.metrics.auth.WithLabelValues(result, methodLabel(r.method)).Inc()
}

func methodLabel(m stun.Method) string {
	switch m {
	case stun.MethodAllocate:
		return "allocate"
	case stun.MethodRefresh:
		return "refresh"
	case stun.MethodCreatePermission:
		return "create_permission"
	case stun.MethodChannelBind:
		return "channel_bind"
	default:
		return "other"
	}
}
