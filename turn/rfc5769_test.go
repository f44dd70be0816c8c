package turn

import (
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	"github.com/pion/stun"
)

// The test vectors of RFC 5769: what we read and check is what others write.
const (
	rfc5769Request = `000100582112a442b7e7a701bc34d686fa87dfae
		802200105354554e207465737420636c69656e74 002400046e0001ff 80290008932ff9b151263b36
		00060009 6576746a3a6836765920202000080014 9aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2 80280004e57a3bcf`
	rfc5769IPv4 = `0101003c2112a442b7e7a701bc34d686fa87dfae
		8022000b7465737420766563746f7220 00200008 0001a147e112a643 00080014 2b91f599fd9e90c38c7489f92af9ba53f06be7d7 80280004c07d4c96`
	rfc5769IPv6 = `010100482112a442b7e7a701bc34d686fa87dfae
		8022000b7465737420766563746f7220 00200014 0002a147 0113a9faa5d3f179bc25f4b5bed2b9d9
		00080014 a382954e4be67bf11784c97c8292c275bfe3ed41 80280004c8fb0b4c`
	rfc5769LongTerm = `000100602112a44278ad3433c6ad72c029da412e
		00060012e3839ee38388e383aae38383e382af e382b90000 0015001c662f2f3439396b39353464364f4c33346f4c394653547679 3634734100
		14000b6578616d706c652e6f72670000080014 f67024656dd64a3e02b8e0712e85c9a28ca89666`
)

func vector(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestRFC5769(t *testing.T) {
	shortTerm := stun.NewShortTermIntegrity("VOkJxbRl1RmTxUk/WvJxBt")
	g := new(guard)
	for name, tt := range map[string]struct {
		message string
		mapped  netip.AddrPort
	}{
		"2.1 request":       {rfc5769Request, netip.AddrPort{}},
		"2.2 IPv4 response": {rfc5769IPv4, netip.MustParseAddrPort("192.0.2.1:32853")},
		"2.3 IPv6 response": {rfc5769IPv6, netip.MustParseAddrPort("[2001:db8:1234:5678:11:2233:4455:6677]:32853")},
	} {
		t.Run(name, func(t *testing.T) {
			b := vector(t, tt.message)
			if !looksLikeTURN(b) || !g.decode(b) { // which checks FINGERPRINT
				t.Fatal("not understood")
			}
			if err := shortTerm.Check(&g.in); err != nil {
				t.Error(err)
			}
			if v, ok := attributes(g.in.Attributes).get(stun.AttrXORMappedAddress); ok != tt.mapped.IsValid() {
				t.Errorf("has a mapped address: %v", ok)
			} else if ok {
				if got, ok := parseXORAddress(v, &g.in); !ok || got != tt.mapped {
					t.Errorf("mapped address %v, want %v", got, tt.mapped)
				}
				m := &stun.Message{TransactionID: g.in.TransactionID}
				if err := (xorAddress{stun.AttrXORMappedAddress, tt.mapped}).AddTo(m); err != nil || string(m.Attributes[0].Value[1:]) != string(v[1:]) {
					t.Errorf("we write % x, %v; want % x", m.Attributes[0].Value, err, v)
				}
			}
			const fingerprint = 8
			for i := range len(b) - fingerprint { // what follows MESSAGE-INTEGRITY counts for nothing
				b[i] ^= 1
				if g.decode(b) && shortTerm.Check(&g.in) == nil {
					t.Errorf("byte %d may be changed", i)
				}
				b[i] ^= 1
			}
		})
	}
}

// Section 2.4: long-term credentials; SASLprep leaves TheMatrIX of its password.
func TestRFC5769LongTerm(t *testing.T) {
	g := new(guard)
	b := vector(t, rfc5769LongTerm)
	if !looksLikeTURN(b) || !g.decode(b) {
		t.Fatal("not understood")
	}
	attrs := attributes(g.in.Attributes)
	username, _ := attrs.get(stun.AttrUsername)
	realm, _ := attrs.get(stun.AttrRealm)
	nonce, _ := attrs.get(stun.AttrNonce)
	if string(username) != "\u30de\u30c8\u30ea\u30c3\u30af\u30b9" || string(realm) != "example.org" || string(nonce) != "f//499k954d6OL34oL9FSTvy64sA" {
		t.Errorf("user %q, realm %q, nonce %q", username, realm, nonce)
	}
	if err := stun.MessageIntegrity(longTermKey(string(username), string(realm), "TheMatrIX")).Check(&g.in); err != nil {
		t.Error(err)
	}
	if stun.MessageIntegrity(longTermKey(string(username), string(realm), "thematrix")).Check(&g.in) == nil {
		t.Error("another password does, too")
	}
}
