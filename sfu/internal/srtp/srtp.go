// Package srtp seals and opens RTP packets (RFC 3711, RFC 7714) without
// allocating, one context for each direction, key and SSRC.
//
//	master key, salt ──KDF──> Keys ──> Sealer of SSRC a:  header, payload ──> packet
//	                               └─> Opener of SSRC b:  packet ──> header, payload
//
// # What must never happen
//
// Two different packets under one key and nonce would give away both, and with
// GCM the authentication of all others. The nonce is made of SSRC, rollover
// counter and sequence number, and therefore
//
//   - Keys makes one Sealer for an SSRC, ever;
//   - a Sealer takes the nonce from the header that it seals, whose SSRC must be
//     its own, and counts the rollovers itself;
//   - it refuses a number that it has sealed, and one so old that it does not
//     know whether it has;
//   - Repeat, which sends a packet again, gives out only what Seal gave out
//     before: the packet is sealed anew and compared by its tag.
//
// RTCP is not for this package: it has keys of its own.
package srtp

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha1"
	"errors"
	"fmt"
	"hash"
	"sync"
)

// Errors of Seal, Repeat and Open.
var (
	ErrShort     = errors.New("packet is cut short")
	ErrVersion   = errors.New("packet is not RTP version 2")
	ErrSource    = errors.New("packet is of another SSRC")
	ErrReplayed  = errors.New("packet was received before")
	ErrOld       = errors.New("packet is too old")
	ErrForged    = errors.New("packet is not authentic")
	ErrSealed    = errors.New("packet was sealed before")
	ErrUnknown   = errors.New("packet was never sealed")
	ErrDifferent = errors.New("packet differs from the one sealed before")
	ErrSpent     = errors.New("key is used up")
	ErrTaken     = errors.New("SSRC has a sealer already")
)

// A Profile is a DTLS-SRTP protection profile (RFC 5764 §4.1.2, RFC 7714 §14.2).
// The zero Profile is none.
type Profile uint16

// The profiles that are known.
const (
	AES128CMSHA1x80 Profile = 0x0001
	AES128CMSHA1x32 Profile = 0x0002
	AEADAES128GCM   Profile = 0x0007
	AEADAES256GCM   Profile = 0x0008
)

// KeyLength is the length of the master key in bytes, 0 for an unknown profile.
func (p Profile) KeyLength() int {
	switch p {
	case AES128CMSHA1x80, AES128CMSHA1x32, AEADAES128GCM:
		return 16
	case AEADAES256GCM:
		return 32
	}
	return 0
}

// SaltLength is the length of the master salt in bytes, 0 for an unknown profile.
func (p Profile) SaltLength() int {
	switch p {
	case AES128CMSHA1x80, AES128CMSHA1x32:
		return 14
	case AEADAES128GCM, AEADAES256GCM:
		return 12
	}
	return 0
}

// Overhead is by how many bytes a sealed packet is longer.
func (p Profile) Overhead() int {
	switch p {
	case AES128CMSHA1x80:
		return 10
	case AES128CMSHA1x32:
		return 4
	}
	return 16
}

// MostOverhead is the greatest Overhead there is.
const MostOverhead = 16

// The labels of the key derivation (RFC 3711 §4.3.2).
const (
	labelEncryption     = 0
	labelAuthentication = 1
	labelSalt           = 2
)

// Keys are the session keys of one direction. It is safe for concurrent use.
type Keys struct {
	profile Profile
	block   cipher.Block // of the counter mode, or
	aead    cipher.AEAD  // of GCM
	auth    []byte       // key of the counter mode's HMAC
	salt    [14]byte

	mu    sync.Mutex // guards taken
	taken map[uint32]struct{}
}

// NewKeys derives the session keys. The arguments are not kept.
func NewKeys(p Profile, master, salt []byte) (*Keys, error) {
	if p.KeyLength() == 0 {
		return nil, fmt.Errorf("profile %#04x: not supported", uint16(p))
	}
	if len(master) != p.KeyLength() || len(salt) != p.SaltLength() {
		return nil, fmt.Errorf("profile %#04x: key of %d and salt of %d bytes, want %d and %d", uint16(p), len(master), len(salt), p.KeyLength(), p.SaltLength())
	}
	kdf, err := aes.NewCipher(master)
	if err != nil {
		return nil, fmt.Errorf("make key derivation: %w", err)
	}
	key := derive(kdf, salt, labelEncryption, p.KeyLength())
	defer clear(key)
	k := &Keys{profile: p, taken: map[uint32]struct{}{}}
	copy(k.salt[:], derive(kdf, salt, labelSalt, p.SaltLength()))
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("make cipher: %w", err)
	}
	if p == AEADAES128GCM || p == AEADAES256GCM {
		if k.aead, err = cipher.NewGCM(block); err != nil {
			return nil, fmt.Errorf("make GCM: %w", err)
		}
		return k, nil
	}
	k.block, k.auth = block, derive(kdf, salt, labelAuthentication, sha1.Size)
	return k, nil
}

// derive is the key derivation function of RFC 3711 §4.3 with a key derivation
// rate of 0, for all profiles (RFC 7714 §11).
func derive(kdf cipher.Block, salt []byte, label byte, n int) []byte {
	var in, block [aes.BlockSize]byte
	copy(in[:14], salt)
	in[7] ^= label
	var out []byte
	for i := byte(0); len(out) < n; i++ {
		in[15] = i
		kdf.Encrypt(block[:], in[:])
		out = append(out, block[:]...)
	}
	clear(block[:])
	clear(out[n:])
	return out[:n]
}

// Profile returns what the keys are for.
func (k *Keys) Profile() Profile { return k.profile }

// Wipe overwrites what can be overwritten. The Keys must not be used any longer
// for new contexts; those that exist go on.
func (k *Keys) Wipe() {
	clear(k.auth)
	clear(k.salt[:])
}

// Opener makes the context of one incoming SSRC.
func (k *Keys) Opener(ssrc uint32) *Opener {
	return &Opener{crypt: k.crypt(ssrc)}
}

// maxTaken is how many SSRCs one key may be used for: each is remembered as long as
// the key, and nobody has as many who is up to something good.
const maxTaken = 1 << 20

// Sealer makes the context of one outgoing SSRC. There can be only one: the error
// is ErrTaken if there was one before, and ErrSpent if there were too many of
// others. Repeat knows the last memory packets.
func (k *Keys) Sealer(ssrc uint32, memory int) (*Sealer, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, taken := k.taken[ssrc]; taken {
		return nil, ErrTaken
	}
	if len(k.taken) >= maxTaken {
		return nil, ErrSpent
	}
	k.taken[ssrc] = struct{}{}
	return &Sealer{crypt: k.crypt(ssrc), tags: make([]uint64, min(memory, window))}, nil
}

func (k *Keys) crypt(ssrc uint32) crypt {
	c := crypt{ssrc: ssrc, overhead: k.profile.Overhead(), block: k.block, aead: k.aead, salt: k.salt}
	if k.block != nil {
		c.mac = hmac.New(sha1.New, k.auth)
	}
	return c
}

// A crypt is what both directions have in common: the transform of one packet
// under a known index. The buffers are in it because the slices handed to a
// cipher escape.
type crypt struct {
	ssrc     uint32
	overhead int
	block    cipher.Block
	aead     cipher.AEAD
	salt     [14]byte
	mac      hash.Hash

	nonce  [aes.BlockSize]byte
	stream [8 * aes.BlockSize]byte
	roc    [4]byte
	sum    [sha1.Size]byte
}
