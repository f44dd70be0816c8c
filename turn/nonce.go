package turn

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"net/netip"
	"time"
)

const (
	nonceLifetime = time.Hour // RFC 8656 §5 asks for at least an hour
	nonceStamp    = 4
	nonceMAC      = 8
	nonceLength   = (nonceStamp + nonceMAC) * 4 / 3 // base64 without padding
)

// nonces makes and checks nonces without remembering any: a nonce is its time
// of issue and a MAC over that time and the client's address. It is short
// because it goes to unproven UDP sources, for whom we must not be an
// amplifier; bound to the address because a recorded request is then worthless
// elsewhere.
type nonces struct{ key [32]byte }

func newNonces() *nonces {
	n := new(nonces)
	_, _ = rand.Read(n.key[:]) // crypto/rand.Read never returns an error
	return n
}

func (n *nonces) issue(to netip.AddrPort, now time.Time) []byte {
	raw := make([]byte, nonceStamp, nonceStamp+sha256.Size)
	binary.BigEndian.PutUint32(raw, uint32(now.Unix()))
	raw = n.sign(raw, to)[:nonceStamp+nonceMAC]
	return base64.RawURLEncoding.AppendEncode(nil, raw)
}

// valid tells whether we issued nonce to this address in the last hour.
func (n *nonces) valid(nonce []byte, from netip.AddrPort, now time.Time) bool {
	if len(nonce) != nonceLength {
		return false
	}
	raw, err := base64.RawURLEncoding.AppendDecode(nil, nonce)
	if err != nil {
		return false
	}
	var want [nonceStamp + sha256.Size]byte
	copy(want[:], raw[:nonceStamp])
	n.sign(want[:nonceStamp], from)
	if !hmac.Equal(raw[nonceStamp:], want[nonceStamp:nonceStamp+nonceMAC]) {
		return false
	}
	issued := time.Unix(int64(binary.BigEndian.Uint32(raw)), 0)
	return now.Sub(issued) <= nonceLifetime
}

// sign appends the MAC of stamp and address to stamp.
func (n *nonces) sign(stamp []byte, addr netip.AddrPort) []byte {
	mac := hmac.New(sha256.New, n.key[:])
	ip := addr.Addr().As16()
	mac.Write(stamp)
	mac.Write(ip[:])
	mac.Write(binary.BigEndian.AppendUint16(nil, addr.Port()))
	return mac.Sum(stamp)
}
