// Package dtlskeys learns the SRTP keys of a DTLS session (RFC 5764) that
// somebody else runs, from what that session shows of itself:
//
//	key log line            client random, master secret ─┐
//	ServerHello, plaintext  server random, SRTP profile,  ├─ RFC 5705 ─> keys, salts
//	                        cipher suite                  ─┘
//
// The ServerHello is read on its way, so it may be a stranger's. That gives away
// nothing: without the right random nobody understands anybody. A session in
// which two different ones have passed is refused.
package dtlskeys

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"sync"
)

// Errors of Keys.
var (
	ErrNoSecret  = errors.New("master secret is not known")
	ErrNoHello   = errors.New("no ServerHello has passed")
	ErrManyHello = errors.New("different ServerHellos have passed")
	ErrNoProfile = errors.New("no SRTP profile was negotiated")
	ErrSuite     = errors.New("cipher suite is not known")
)

// label is that of RFC 5764 §4.2.
const label = "EXTRACTOR-dtls_srtp"

// masterSecret is the length of one in bytes (RFC 5246 §8.1).
const masterSecret = 48

// Keys are the master keys and salts of both directions.
type Keys struct {
	Profile uint16 // DTLS-SRTP protection profile, as in the ServerHello
	Client  bool   // whether we are the DTLS client

	ClientKey, ClientSalt []byte // for what the client sends
	ServerKey, ServerSalt []byte // for what the server sends

	material []byte // all of them
}

// Wipe overwrites the keys.
func (k *Keys) Wipe() { clear(k.material) }

// Secrets gathers what the keys of one session are made of. The zero Secrets knows
// nothing. It is safe for concurrent use.
type Secrets struct {
	mu       sync.Mutex // guards the following
	over     bool       // nothing more is taken
	random   [32]byte   // of the client
	master   []byte
	incoming hellos
	outgoing hellos
}

// Write takes a line of the key log (NSS format). It never fails: what it does not
// understand it forgets. It implements io.Writer.
func (s *Secrets) Write(line []byte) (int, error) {
	f := bytes.Fields(line)
	if len(f) != 3 || string(f[0]) != "CLIENT_RANDOM" || len(f[1]) != 2*32 || len(f[2]) != 2*masterSecret {
		return len(line), nil
	}
	var random [32]byte
	master := make([]byte, masterSecret)
	_, errRandom := hex.Decode(random[:], f[1])
	_, errMaster := hex.Decode(master, f[2])
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over || errRandom != nil || errMaster != nil {
		clear(master)
		return len(line), nil
	}
	clear(s.master)
	s.random, s.master = random, master
	return len(line), nil
}

// Look reads a DTLS datagram that passes: outgoing says that we send it. It does
// not keep p.
func (s *Secrets) Look(p []byte, outgoing bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return
	}
	if outgoing {
		s.outgoing.read(p)
	} else {
		s.incoming.read(p)
	}
}

// Keys derives the keys. We are the DTLS server if a ServerHello of ours has
// passed. keyLengths returns the lengths of master key and salt for a profile, 0
// for one that is not supported.
func (s *Secrets) Keys(keyLengths func(profile uint16) (key, salt int)) (*Keys, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.master == nil {
		return nil, ErrNoSecret
	}
	of := &s.incoming
	if s.outgoing.count > 0 {
		of = &s.outgoing
	}
	switch {
	case of.count == 0:
		return nil, ErrNoHello
	case of.different:
		return nil, ErrManyHello
	case of.first.profile == 0:
		return nil, ErrNoProfile
	}
	newHash := hashOf(of.first.suite)
	if newHash == nil {
		return nil, fmt.Errorf("%w: %#04x", ErrSuite, of.first.suite)
	}
	key, salt := keyLengths(of.first.profile)
	if key == 0 {
		return nil, fmt.Errorf("SRTP profile %#04x: not supported", of.first.profile)
	}
	m := export(newHash, s.master, s.random[:], of.first.random[:], 2*key+2*salt)
	return &Keys{
		Profile:    of.first.profile,
		Client:     s.outgoing.count == 0,
		ClientKey:  m[:key:key],
		ServerKey:  m[key : 2*key : 2*key],
		ClientSalt: m[2*key : 2*key+salt : 2*key+salt],
		ServerSalt: m[2*key+salt:],
		material:   m,
	}, nil
}

// Wipe overwrites the secrets. Nothing is taken any longer.
func (s *Secrets) Wipe() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	clear(s.master)
	s.master = nil
}

// hashOf returns the hash of a cipher suite's PRF, nil for a suite that is not
// known. These are the suites with certificates that pion/dtls has.
func hashOf(suite uint16) func() hash.Hash {
	switch suite {
	case 0xc02b, 0xc02f, 0xc00a, 0xc014, 0xc0ac, 0xc0ae: // RFC 5246 §5: SHA-256 unless a suite says otherwise
		return sha256.New
	case 0xc02c, 0xc030:
		return sha512.New384
	}
	return nil
}

// export is the exporter of RFC 5705 §4 without context.
func export(h func() hash.Hash, master, client, server []byte, n int) []byte {
	seed := append(append([]byte(label), client...), server...)
	mac := hmac.New(h, master)
	sum := func(parts ...[]byte) []byte {
		mac.Reset()
		for _, p := range parts {
			_, _ = mac.Write(p) // a hash does not fail
		}
		return mac.Sum(nil)
	}
	out := make([]byte, 0, n+mac.Size())
	for a := sum(seed); len(out) < n; a = sum(a) { // P_hash of RFC 5246 §5
		out = append(out, sum(a, seed)...)
	}
	clear(out[n:cap(out)])
	return out[:n]
}
