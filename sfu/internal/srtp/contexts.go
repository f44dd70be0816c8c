package srtp

import "encoding/binary"

// An Opener authenticates and decrypts the packets of one SSRC. It is not safe
// for concurrent use.
type Opener struct {
	crypt
	past history
}

// Open decrypts p in place and returns the RTP packet, which is a part of p. After
// an error p is of no use and the Opener is as before. The errors are ErrShort,
// ErrVersion, ErrSource, ErrReplayed, ErrOld and ErrForged.
func (o *Opener) Open(p []byte) ([]byte, error) {
	n, err := headerLength(p)
	if err != nil {
		return nil, err
	}
	if binary.BigEndian.Uint32(p[8:]) != o.ssrc {
		return nil, ErrSource
	}
	index, ok := o.past.estimate(binary.BigEndian.Uint16(p[2:]))
	if !ok {
		return nil, ErrOld
	}
	switch used, old := o.past.known(index); {
	case used:
		return nil, ErrReplayed
	case old:
		return nil, ErrOld
	}
	out, err := o.open(p, n, index)
	if err != nil {
		return nil, err
	}
	o.past.add(index)
	return out, nil
}

// A Sealer encrypts the packets of one SSRC. It is not safe for concurrent use.
type Sealer struct {
	crypt
	past history
	tags []uint64 // of the last packets, a ring by index; what Repeat compares
}

// Seal encrypts payload behind header, which must have room for it and for the
// profile's overhead or is moved, and returns the whole packet. payload must not
// be in that room. A sequence number is taken once: the error is ErrSealed if it
// was before, ErrOld if nobody can tell, and ErrSpent after 2^48 packets.
func (s *Sealer) Seal(header, payload []byte) ([]byte, error) {
	index, err := s.index(header)
	if err != nil {
		return nil, err
	}
	switch used, old := s.past.known(index); {
	case used:
		return nil, ErrSealed
	case old:
		return nil, ErrOld
	}
	s.past.add(index)
	out := s.seal(header, payload, index)
	if len(s.tags) > 0 {
		s.tags[index%uint64(len(s.tags))] = s.mark(out)
	}
	return out, nil
}

// Repeat is Seal for a packet that was sealed before, and gives out the very same
// bytes. The error is ErrUnknown if it never was, ErrOld if that is forgotten,
// and ErrDifferent, with nothing given out, if header or payload are not what
// they were.
func (s *Sealer) Repeat(header, payload []byte) ([]byte, error) {
	index, err := s.index(header)
	if err != nil {
		return nil, err
	}
	switch used, old := s.past.known(index); {
	case old || s.past.newest-index >= uint64(len(s.tags)) && used:
		return nil, ErrOld
	case !used:
		return nil, ErrUnknown
	}
	out := s.seal(header, payload, index)
	if s.tags[index%uint64(len(s.tags))] != s.mark(out) {
		clear(out[len(header):])
		return nil, ErrDifferent
	}
	return out, nil
}

// index returns the index of the packet with that header.
func (s *Sealer) index(header []byte) (uint64, error) {
	n, err := headerLength(header)
	switch {
	case err != nil:
		return 0, err
	case n != len(header):
		return 0, ErrShort // the rest would be sent in the clear
	case binary.BigEndian.Uint32(header[8:]) != s.ssrc:
		return 0, ErrSource
	}
	index, ok := s.past.estimate(binary.BigEndian.Uint16(header[2:]))
	switch {
	case !ok && s.past.newest > lastIndex/2:
		return 0, ErrSpent
	case !ok:
		return 0, ErrOld
	}
	return index, nil
}

// mark is what tells one sealed packet from another under the same index: the
// first bytes of its tag, which nobody without the key can make two packets
// agree in.
func (s *Sealer) mark(packet []byte) uint64 {
	var b [8]byte
	copy(b[:], packet[len(packet)-s.overhead:])
	return binary.BigEndian.Uint64(b[:])
}
