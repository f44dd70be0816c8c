package wire

import (
	"fmt"
	"math"

	"github.com/tinylib/msgp/msgp"
)

// readString reads a str; nil stands for the empty string, as it does for the
// decoders of other implementations.
func readString(b []byte) (string, []byte, error) {
	if msgp.NextType(b) == msgp.NilType {
		rest, err := msgp.ReadNilBytes(b)
		return "", rest, err
	}
	v, rest, err := msgp.ReadStringZC(b)
	return string(v), rest, err
}

// readData reads a bin, or a str in its place, without copying it. nil stands
// for no data.
func readData(b []byte) ([]byte, []byte, error) {
	switch msgp.NextType(b) {
	case msgp.NilType:
		rest, err := msgp.ReadNilBytes(b)
		return nil, rest, err
	case msgp.StrType:
		return msgp.ReadStringZC(b)
	}
	return msgp.ReadBytesZC(b)
}

// readNumber reads any integer or float and refuses NaN and infinities.
func readNumber(b []byte) (float64, error) {
	var v float64
	var err error
	switch msgp.NextType(b) {
	case msgp.IntType:
		var i int64
		i, _, err = msgp.ReadInt64Bytes(b)
		v = float64(i)
	case msgp.UintType:
		var u uint64
		u, _, err = msgp.ReadUint64Bytes(b)
		v = float64(u)
	default:
		v, _, err = msgp.ReadFloat64Bytes(b)
	}
	if err != nil {
		return 0, err
	}
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return 0, fmt.Errorf("number %v is not finite", v)
	}
	return v, nil
}

// readMap calls entry for each key of a map; entry consumes the value and
// returns what follows it. nil stands for an empty map.
func readMap(b []byte, entry func(key string, b []byte) ([]byte, error)) error {
	if msgp.NextType(b) == msgp.NilType {
		return nil
	}
	n, b, err := msgp.ReadMapHeaderBytes(b)
	if err != nil {
		return err
	}
	for ; n > 0; n-- { // a lying count runs into the end of b
		var key []byte
		if key, b, err = msgp.ReadStringZC(b); err != nil {
			return fmt.Errorf("key: %w", err)
		}
		if b, err = entry(string(key), b); err != nil {
			return err
		}
	}
	return nil
}

// skip returns what follows the first value of b. It counts the values still
// to come instead of descending into them, so that nesting costs no stack.
func skip(b []byte) ([]byte, error) {
	for pending := uint64(1); pending > 0; pending-- {
		var n uint32
		var err error
		switch msgp.NextType(b) {
		case msgp.MapType:
			n, b, err = msgp.ReadMapHeaderBytes(b)
			pending += 2 * uint64(n)
		case msgp.ArrayType:
			n, b, err = msgp.ReadArrayHeaderBytes(b)
			pending += uint64(n)
		default:
			b, err = msgp.Skip(b)
		}
		if err != nil {
			return nil, err
		}
		if pending-1 > uint64(len(b)) { // every value takes a byte at least
			return nil, msgp.ErrShortBytes
		}
	}
	return b, nil
}
