package turn

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/pion/stun"
)

// Values on the wire.
const (
	protocolUDP = 17 // REQUESTED-TRANSPORT
	familyIPv4  = 1  // REQUESTED-ADDRESS-FAMILY
	familyIPv6  = 2

	firstChannel = 0x4000
	lastChannel  = 0x7FFE // RFC 5766; RFC 8656 stops at 0x4FFF, older clients do not
)

// understood are the comprehension-required attributes we accept in requests
// and indications. DONT-FRAGMENT is not among them: a relay in memory has no IP
// header to set the bit in, and RFC 8656 §7.2 wants a 420 then.
var understood = map[stun.AttrType]bool{
	stun.AttrMappedAddress: true, stun.AttrUsername: true, stun.AttrMessageIntegrity: true, stun.AttrErrorCode: true,
	stun.AttrUnknownAttributes: true, stun.AttrChannelNumber: true, stun.AttrLifetime: true, stun.AttrXORPeerAddress: true,
	stun.AttrData: true, stun.AttrRealm: true, stun.AttrNonce: true, stun.AttrXORRelayedAddress: true,
	stun.AttrRequestedAddressFamily: true, stun.AttrEvenPort: true, stun.AttrRequestedTransport: true,
	stun.AttrXORMappedAddress: true, stun.AttrReservationToken: true,
}

// attributes are those of one message. Their values belong to the message.
type attributes []stun.RawAttribute

// get returns the first attribute of a type.
func (a attributes) get(t stun.AttrType) ([]byte, bool) {
	for i := range a {
		if a[i].Type == t {
			return a[i].Value, true
		}
	}
	return nil, false
}

func (a attributes) has(t stun.AttrType) bool {
	_, ok := a.get(t)
	return ok
}

// unknown returns the comprehension-required attributes we do not know, as
// the value of UNKNOWN-ATTRIBUTES (RFC 8489 §14.13); nil if there are none.
func (a attributes) unknown() []byte {
	var list []byte
	for i := range a {
		if t := a[i].Type; t < 0x8000 && !understood[t] {
			list = binary.BigEndian.AppendUint16(list, uint16(t))
		}
	}
	return list
}

// lifetime returns LIFETIME; ok is false if there is none or it is malformed.
func (a attributes) lifetime() (d time.Duration, ok bool) {
	v, ok := a.get(stun.AttrLifetime)
	if !ok || len(v) != 4 {
		return 0, false
	}
	return time.Duration(binary.BigEndian.Uint32(v)) * time.Second, true
}

// family returns the family of REQUESTED-ADDRESS-FAMILY, 0 if there is none;
// false if it is malformed.
func (a attributes) family() (family byte, ok bool) {
	v, has := a.get(stun.AttrRequestedAddressFamily)
	if !has {
		return 0, true
	}
	if len(v) != 4 || v[0] == 0 {
		return 0, false
	}
	return v[0], true
}

// peers returns every XOR-PEER-ADDRESS; false if one is malformed.
func (a attributes) peers(m *stun.Message) (all []netip.AddrPort, ok bool) {
	for i := range a {
		if a[i].Type == stun.AttrXORPeerAddress {
			addr, ok := parseXORAddress(a[i].Value, m)
			if !ok {
				return nil, false
			}
			all = append(all, addr)
		}
	}
	return all, true
}

// peer returns the first XOR-PEER-ADDRESS without allocating.
func (a attributes) peer(m *stun.Message) (addr netip.AddrPort, ok bool) {
	v, ok := a.get(stun.AttrXORPeerAddress)
	if !ok {
		return netip.AddrPort{}, false
	}
	return parseXORAddress(v, m)
}

// familyOf returns the family of an address as attributes write it.
func familyOf(ip netip.Addr) byte {
	if ip.Is4() {
		return familyIPv4
	}
	return familyIPv6
}

// parseXORAddress reads an address as RFC 8489 §14.2 writes it. pion/stun's
// own reader is not used: it reads past the end of a short value. The result
// is never unmapped, for an IPv4 address in an IPv6 one is nobody's peer.
func parseXORAddress(v []byte, m *stun.Message) (netip.AddrPort, bool) {
	mask := xorMask(m)
	if len(v) < 4 {
		return netip.AddrPort{}, false
	}
	port := binary.BigEndian.Uint16(v[2:]) ^ magicCookie>>16
	switch {
	case v[1] == familyIPv4 && len(v) == 8:
		var ip [4]byte
		for i := range ip {
			ip[i] = v[4+i] ^ mask[i]
		}
		return netip.AddrPortFrom(netip.AddrFrom4(ip), port), true
	case v[1] == familyIPv6 && len(v) == 20:
		var ip [16]byte
		for i := range ip {
			ip[i] = v[4+i] ^ mask[i]
		}
		return netip.AddrPortFrom(netip.AddrFrom16(ip), port), true
	default:
		return netip.AddrPort{}, false
	}
}

// xorAddress writes an address as attribute t.
type xorAddress struct {
	t    stun.AttrType
	addr netip.AddrPort
}

func (x xorAddress) AddTo(m *stun.Message) error {
	ip := x.addr.Addr().AsSlice()
	mask := xorMask(m)
	for i := range ip {
		ip[i] ^= mask[i]
	}
	v := binary.BigEndian.AppendUint16([]byte{0, familyOf(x.addr.Addr())}, x.addr.Port()^magicCookie>>16)
	m.Add(x.t, append(v, ip...))
	return nil
}

// xorMask is what the addresses in m are XORed with.
func xorMask(m *stun.Message) (mask [16]byte) {
	binary.BigEndian.PutUint32(mask[:], magicCookie)
	copy(mask[4:], m.TransactionID[:])
	return mask
}

// attribute writes any other one.
func attribute(t stun.AttrType, value []byte) stun.Setter {
	return stun.RawAttribute{Type: t, Value: value}
}

func lifetimeAttribute(d time.Duration) stun.Setter {
	return attribute(stun.AttrLifetime, binary.BigEndian.AppendUint32(nil, uint32(d/time.Second)))
}

// looksLikeTURN tells whether a datagram is worth a place in a queue: a STUN
// message or a ChannelData frame whose length fits.
func looksLikeTURN(b []byte) bool {
	if len(b) < channelHeader {
		return false
	}
	length := int(binary.BigEndian.Uint16(b[2:]))
	switch b[0] >> 6 {
	case 0:
		return len(b) == stunHeader+length && length%4 == 0 && binary.BigEndian.Uint32(b[4:]) == magicCookie
	case 1:
		return length <= len(b)-channelHeader
	default:
		return false
	}
}

// isResponse tells a STUN response from an indication and from ChannelData.
func isResponse(b []byte) bool {
	return len(b) >= stunHeader && b[0]>>6 == 0 && b[0]&1 != 0
}
