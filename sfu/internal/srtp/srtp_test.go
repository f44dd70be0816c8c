package srtp

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"crypto/aes"
	"crypto/cipher"

	"github.com/pion/rtp"
	pion "github.com/pion/srtp/v2"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var profiles = []Profile{AES128CMSHA1x80, AES128CMSHA1x32, AEADAES128GCM, AEADAES256GCM}

func secrets(p Profile) (key, salt []byte) {
	key, salt = make([]byte, p.KeyLength()), make([]byte, p.SaltLength())
	for i := range key {
		key[i] = byte(7*i + 1)
	}
	for i := range salt {
		salt[i] = byte(11*i + 3)
	}
	return key, salt
}

func newKeys(t testing.TB, p Profile) *Keys {
	t.Helper()
	k, err := NewKeys(p, fst(secrets(p)), snd(secrets(p)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func fst(a, _ []byte) []byte { return a }
func snd(_, b []byte) []byte { return b }

func newSealer(t testing.TB, k *Keys, ssrc uint32, memory int) *Sealer {
	t.Helper()
	s, err := k.Sealer(ssrc, memory)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// header makes an RTP header with an extension, with room for a packet behind it.
func header(ssrc uint32, seq uint16) []byte {
	h := append(make([]byte, 0, 1500), 0x90, 111, 0, 0)
	binary.BigEndian.PutUint16(h[2:], seq)
	h = binary.BigEndian.AppendUint32(h, 960*uint32(seq))
	h = binary.BigEndian.AppendUint32(h, ssrc)
	return append(h, 0xBE, 0xDE, 0, 1, 0x10, 0x55, 0, 0)
}

// RFC 3711 §B.3.
func TestKeyDerivation(t *testing.T) {
	kdf, err := aes.NewCipher(unhex(t, "E1F97A0D3E018BE0D64FA32C06DE4139"))
	if err != nil {
		t.Fatal(err)
	}
	salt := unhex(t, "0EC675AD498AFEEBB6960B3AABE6")
	for label, want := range map[byte]string{
		labelEncryption:     "C61E7A93744F39EE10734AFE3FF7A087",
		labelSalt:           "30CBBC08863D8C85D49DB34A9AE1",
		labelAuthentication: "CEBE321F6FF7716B6FD4AB49AF256A156D38BAA48F0A0ACF3C34E2359E6CDBCEE049646C43D9327AD175578EF72270986371C10C9A369AC2F94A8C5FBCDDDC256D6E919A48B610EF17C2041E47403576",
	} {
		w := unhex(t, want)
		if got := derive(kdf, salt, label, len(w)); !bytes.Equal(got, w) {
			t.Errorf("label %d: %X, want %s", label, got, want)
		}
	}
}

// RFC 3711 §B.2.
func TestCounterMode(t *testing.T) {
	block, err := aes.NewCipher(unhex(t, "2B7E151628AED2A6ABF7158809CF4F3C"))
	if err != nil {
		t.Fatal(err)
	}
	c := crypt{block: block}
	copy(c.salt[:], unhex(t, "F0F1F2F3F4F5F6F7F8F9FAFBFCFD"))
	stream := make([]byte, 16*0xFF02)
	c.cm(stream, stream, 0)
	for at, want := range map[int]string{
		0:      "E03EAD0935C95E80E166B16DD92B4EB4D23513162B02D0F72A43A2FE4A5F97AB41E95B3BB0A2E8DD477901E4FCA894C0",
		0xFEFF: "EC8CDF7398607CB0F2D21675EA9EA1E4362B7C3C6773516318A077D7FC5073AE6A2CC3787889374FBEB4C81B17BA6C44",
	} {
		if got := stream[16*at : 16*at+48]; !bytes.Equal(got, unhex(t, want)) {
			t.Errorf("block %#x: %X, want %s", at, got, want)
		}
	}
}

// RFC 7714 §16.1.1 and §16.2.1: the session keys are given there.
func TestGCM(t *testing.T) {
	packet := "8040f17b 8041f8d3 5501a0b2 47616c6c 69612065 7374206f 6d6e6973 20646976 69736120 696e2070 61727465 73207472 6573"
	for _, test := range []struct{ key, want string }{
		{"00010203 04050607 08090a0b 0c0d0e0f", "8040f17b 8041f8d3 5501a0b2 f24de3a3 fb34de6c acba861c 9d7e4bca be633bd5 0d294e6f 42a5f47a 51c7d19b 36de3adf 8833899d 7f27beb1 6a9152cf 765ee439 0cce"},
		{"00010203 04050607 08090a0b 0c0d0e0f 10111213 14151617 18191a1b 1c1d1e1f", "8040f17b 8041f8d3 5501a0b2 32b1de78 a822fe12 ef9f78fa 332e33aa b1801238 9a58e2f3 b50b2a02 76ffae0f 1ba63799 b87b7aa3 db36dfff d6b0f9bb 7878d7a7 6c13"},
	} {
		block, err := aes.NewCipher(unhex(t, test.key))
		if err != nil {
			t.Fatal(err)
		}
		aead, err := cipher.NewGCM(block)
		if err != nil {
			t.Fatal(err)
		}
		c := crypt{ssrc: 0x5501a0b2, overhead: 16, aead: aead}
		copy(c.salt[:], unhex(t, "51756964 2070726f 2071756f"))
		plain, want := unhex(t, packet), unhex(t, test.want)
		got := c.seal(append(make([]byte, 0, 100), plain[:12]...), plain[12:], 0xf17b)
		if !bytes.Equal(got, want) {
			t.Errorf("sealed %x, want %x", got, want)
		}
		if got, err := c.open(want, 12, 0xf17b); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("opened %x, %v", got, err)
		}
	}
}

func pionContext(t testing.TB, p Profile) *pion.Context {
	t.Helper()
	key, salt := secrets(p)
	c, err := pion.CreateContext(key, salt, pion.ProtectionProfile(p), pion.SRTPReplayProtection(512))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestPion: what one seals the other opens, over two rollovers, with gaps and out
// of order, with SSRCs in between.
func TestPion(t *testing.T) {
	for _, p := range profiles {
		t.Run(fmt.Sprint(p), func(t *testing.T) {
			k := newKeys(t, p)
			theirs, opening := pionContext(t, p), pionContext(t, p)
			sealers, openers := map[uint32]*Sealer{}, map[uint32]*Opener{}
			for _, ssrc := range []uint32{1, 0xFFFFFFFF} {
				sealers[ssrc], openers[ssrc] = newSealer(t, k, ssrc, 0), k.Opener(ssrc)
			}
			for i := uint32(0); i < 2<<16; i += 61 {
				for _, step := range []uint32{0, 40, 20} { // the last one comes late
					for ssrc, sealer := range sealers {
						seq, payload := uint16(30000+i+step), bytes.Repeat([]byte{byte(i)}, int(i%1200))
						h := header(ssrc, seq)
						plain := append(bytes.Clone(h), payload...)
						ours, err := sealer.Seal(h, payload)
						if err != nil {
							t.Fatalf("seal %d: %v", seq, err)
						}
						if got, err := opening.DecryptRTP(nil, ours, nil); err != nil || !bytes.Equal(got, plain) {
							t.Fatalf("pion opens packet %d of %d: %v", seq, i, err)
						}
						sealed, err := theirs.EncryptRTP(nil, plain, &rtp.Header{})
						if err != nil {
							t.Fatal(err)
						}
						if !bytes.Equal(sealed, ours) {
							t.Fatalf("sealed %x, pion says %x", ours, sealed)
						}
						if got, err := openers[ssrc].Open(sealed); err != nil || !bytes.Equal(got, plain) {
							t.Fatalf("open packet %d: %v", seq, err)
						}
					}
				}
			}
		})
	}
}

func TestReplayAndForgery(t *testing.T) {
	for _, p := range profiles {
		k := newKeys(t, p)
		s, o := newSealer(t, k, 5, 0), k.Opener(5)
		packets := map[int][]byte{}
		for seq := 0; seq <= 2*window; seq++ {
			out, err := s.Seal(header(5, uint16(seq)), []byte{1, 2, 3})
			if err != nil {
				t.Fatal(err)
			}
			packets[seq] = out
		}
		open := func(seq int) error {
			_, err := o.Open(bytes.Clone(packets[seq]))
			return err
		}
		for _, step := range []struct {
			seq  int
			want error
		}{{0, nil}, {0, ErrReplayed}, {2, nil}, {1, nil}, {1, ErrReplayed}, {window, nil}, {0, ErrOld}, {window - 1, nil}, {3, nil}, {1, ErrReplayed}, {2 * window, nil}, {window, ErrOld}, {window + 1, nil}, {window + 2, nil}, {window + 2, ErrReplayed}} {
			if err := open(step.seq); !errors.Is(err, step.want) {
				t.Fatalf("profile %d, packet %d: %v, want %v", p, step.seq, err, step.want)
			}
		}
		whole := packets[2*window-1]
		for i := range whole {
			bad := bytes.Clone(whole)
			bad[i] ^= 0x40
			if _, err := o.Open(bad); err == nil {
				t.Fatalf("profile %d: opened a packet with byte %d changed", p, i)
			}
			if _, err := o.Open(bytes.Clone(whole[:i])); err == nil {
				t.Fatalf("profile %d: opened the first %d bytes", p, i)
			}
		}
		if err := open(2*window - 1); err != nil {
			t.Fatalf("profile %d: the packet itself after all that: %v", p, err)
		}
	}
}
