package main

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// maxProfile is how many bytes a profile may have inflated.
const maxProfile = 256 << 20

var errCut = errors.New("profile is cut or damaged")

// A sample is one stack of a profile, the innermost function first, and its
// value of the last sample type: for a CPU profile nanoseconds.
type sample struct {
	stack []string
	value int64
}

// parse reads a profile in the format of pprof (profile.proto), gzipped or not,
// as far as flame graphs need it.
func parse(b []byte) ([]sample, error) {
	if bytes.HasPrefix(b, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			return nil, fmt.Errorf("inflate profile: %w", err)
		}
		if b, err = io.ReadAll(io.LimitReader(z, maxProfile)); err != nil {
			return nil, fmt.Errorf("inflate profile: %w", err)
		}
	}
	p := profile{lines: map[uint64][]uint64{}, names: map[uint64]uint64{}}
	if err := fields(b, p.field); err != nil {
		return nil, fmt.Errorf("parse profile: %w", err)
	}
	all := make([]sample, 0, len(p.samples))
	for _, raw := range p.samples {
		if len(raw.values) == 0 {
			return nil, fmt.Errorf("parse profile: %w", errCut)
		}
		s := sample{value: int64(raw.values[len(raw.values)-1])}
		for _, at := range raw.locations {
			for _, function := range p.lines[at] { // several where calls are inlined
				name := p.names[function]
				if name >= uint64(len(p.strings)) {
					return nil, fmt.Errorf("parse profile: %w", errCut)
				}
				s.stack = append(s.stack, p.strings[name])
			}
		}
		all = append(all, s)
	}
	return all, nil
}

type rawSample struct{ locations, values []uint64 }

type profile struct {
	samples []rawSample
	lines   map[uint64][]uint64 // location → functions, innermost first
	names   map[uint64]uint64   // function → string
	strings []string
}

// field takes a field of message Profile.
func (p *profile) field(number, _ uint64, b []byte) error {
	switch number {
	case 2: // sample
		var s rawSample
		err := fields(b, func(number, v uint64, b []byte) error {
			switch number {
			case 1:
				return repeated(&s.locations, v, b)
			case 2:
				return repeated(&s.values, v, b)
			}
			return nil
		})
		p.samples = append(p.samples, s)
		return err
	case 4: // location
		var id uint64
		var functions []uint64
		err := fields(b, func(number, v uint64, b []byte) error {
			switch number {
			case 1:
				id = v
			case 4: // line
				return fields(b, func(number, v uint64, _ []byte) error {
					if number == 1 {
						functions = append(functions, v)
					}
					return nil
				})
			}
			return nil
		})
		p.lines[id] = functions
		return err
	case 5: // function
		var id, name uint64
		err := fields(b, func(number, v uint64, _ []byte) error {
			switch number {
			case 1:
				id = v
			case 2:
				name = v
			}
			return nil
		})
		p.names[id] = name
		return err
	case 6:
		p.strings = append(p.strings, string(b))
	}
	return nil
}

// repeated adds a number, or packed numbers.
func repeated(to *[]uint64, v uint64, b []byte) error {
	if b == nil {
		*to = append(*to, v)
		return nil
	}
	for len(b) > 0 {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			return errCut
		}
		*to, b = append(*to, v), b[n:]
	}
	return nil
}

// fields calls f for each field of a protobuf message: with its bytes, not nil,
// or with its number.
func fields(b []byte, f func(number, v uint64, b []byte) error) error {
	for len(b) > 0 {
		key, n := binary.Uvarint(b)
		if n <= 0 {
			return errCut
		}
		b = b[n:]
		var v uint64
		var body []byte
		switch key & 7 {
		case 0:
			if v, n = binary.Uvarint(b); n <= 0 {
				return errCut
			}
			b = b[n:]
		case 2:
			size, n := binary.Uvarint(b)
			if n <= 0 || size > uint64(len(b)-n) {
				return errCut
			}
			body, b = b[n:n+int(size):n+int(size)], b[n+int(size):]
		case 1, 5: // fixed, which profiles do not have
			size := map[uint64]int{1: 8, 5: 4}[key&7]
			if len(b) < size {
				return errCut
			}
			b = b[size:]
		default:
			return errCut
		}
		if err := f(key>>3, v, body); err != nil {
			return err
		}
	}
	return nil
}
