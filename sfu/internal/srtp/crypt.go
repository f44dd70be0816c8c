package srtp

import (
	"crypto/aes"
	"crypto/hmac"
	"crypto/subtle"
	"encoding/binary"
)

// headerLength returns the length of the RTP header (RFC 3550 §5.1), which is not
// encrypted.
func headerLength(p []byte) (int, error) {
	if len(p) < 12 {
		return 0, ErrShort
	}
	if p[0]>>6 != 2 {
		return 0, ErrVersion
	}
	n := 12 + 4*int(p[0]&0x0F)
	if p[0]&0x10 != 0 {
		if len(p) < n+4 {
			return 0, ErrShort
		}
		n += 4 + 4*int(binary.BigEndian.Uint16(p[n+2:]))
	}
	if n > len(p) {
		return 0, ErrShort
	}
	return n, nil
}

// gcmNonce sets the nonce of RFC 7714 §8.1: two zero bytes, SSRC, rollover
// counter and sequence number, over the salt.
func (c *crypt) gcmNonce(index uint64) []byte {
	n := c.nonce[:12]
	n[0], n[1] = 0, 0
	binary.BigEndian.PutUint32(n[2:], c.ssrc)
	binary.BigEndian.PutUint32(n[6:], uint32(index>>16))
	binary.BigEndian.PutUint16(n[10:], uint16(index))
	subtle.XORBytes(n, n, c.salt[:12])
	return n
}

// cm is AES in counter mode (RFC 3711 §4.1.1). dst and src may be the same.
func (c *crypt) cm(dst, src []byte, index uint64) {
	iv := &c.nonce
	copy(iv[:], c.salt[:])
	iv[14], iv[15] = 0, 0
	binary.BigEndian.PutUint32(iv[4:], binary.BigEndian.Uint32(iv[4:])^c.ssrc)
	binary.BigEndian.PutUint32(iv[8:], binary.BigEndian.Uint32(iv[8:])^uint32(index>>16))
	binary.BigEndian.PutUint16(iv[12:], binary.BigEndian.Uint16(iv[12:])^uint16(index))
	for counter := uint16(0); len(src) > 0; {
		n := min(len(src), len(c.stream))
		for at := 0; at < n; at += aes.BlockSize {
			binary.BigEndian.PutUint16(iv[14:], counter)
			c.block.Encrypt(c.stream[at:at+aes.BlockSize], iv[:])
			counter++
		}
		subtle.XORBytes(dst[:n], src[:n], c.stream[:n])
		dst, src = dst[n:], src[n:]
	}
}

// tag authenticates a packet and the rollover counter (RFC 3711 §4.2). The result
// is valid until the next call.
func (c *crypt) tag(packet []byte, index uint64) []byte {
	binary.BigEndian.PutUint32(c.roc[:], uint32(index>>16))
	c.mac.Reset()
	_, _ = c.mac.Write(packet) // a hash does not fail
	_, _ = c.mac.Write(c.roc[:])
	return c.mac.Sum(c.sum[:0])[:c.overhead]
}

// seal appends the encrypted payload and the tag to the header. payload must not
// lie in the room behind header.
func (c *crypt) seal(header, payload []byte, index uint64) []byte {
	if c.aead != nil {
		return c.aead.Seal(header, c.gcmNonce(index), payload, header)
	}
	n := len(header)
	out := append(header, payload...)
	c.cm(out[n:], payload, index)
	return append(out, c.tag(out, index)...)
}

// open decrypts p, whose first n bytes are the header, in place.
func (c *crypt) open(p []byte, n int, index uint64) ([]byte, error) {
	end := len(p) - c.overhead
	if end < n {
		return nil, ErrShort
	}
	if c.aead != nil {
		if _, err := c.aead.Open(p[n:n], c.gcmNonce(index), p[n:], p[:n]); err != nil {
			return nil, ErrForged
		}
		return p[:end], nil
	}
	if !hmac.Equal(c.tag(p[:end], index), p[end:]) {
		return nil, ErrForged
	}
	c.cm(p[n:end], p[n:end], index)
	return p[:end], nil
}
