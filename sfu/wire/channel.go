package wire

import (
	"bytes"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/tinylib/msgp/msgp"
)

// A ChannelType says what a ChannelMessage is about. Zero is invalid.
type ChannelType uint8

// The types of messages on the data channel.
const (
	ChannelPing   ChannelType = 1 // client → server, every second
	ChannelPong   ChannelType = 2 // server → client
	ChannelSDP    ChannelType = 3 // both ways: SDP
	ChannelLoss   ChannelType = 4 // client → server: Value, share of packets lost, 0 to 1
	ChannelRTT    ChannelType = 5 // client → server: Value, seconds
	ChannelJitter ChannelType = 6 // client → server: Value, seconds
	ChannelLock   ChannelType = 7 // client → server: request; server → client: Granted
	ChannelUnlock ChannelType = 8 // client → server
	ChannelMap    ChannelType = 9 // server → client: Media
)

// A ChannelMessage is one binary message on the data channel. Type says which
// of the other fields mean something.
type ChannelMessage struct {
	Type    ChannelType
	SDP     Description      // ChannelSDP
	Value   float64          // ChannelLoss, ChannelRTT, ChannelJitter: finite, else as the client claims
	Granted *bool            // ChannelLock: the answer; nil = this is a request
	Media   map[string]Media // ChannelMap: by mid, all tracks the server sends
}

// Media describes the track the server sends on one m-line.
type Media struct {
	Type   string // voice, screen, screen-audio or video
	Sender string // session ID of the publisher
}

// DecodeChannel reads a binary message of the data channel. It accepts numbers
// of any integer or float type and descriptions of up to 1 MiB inflated.
func DecodeChannel(b []byte) (ChannelMessage, error) {
	t, b, err := msgp.ReadInt64Bytes(b)
	if err != nil {
		return ChannelMessage{}, fmt.Errorf("decode channel message type: %w", err)
	}
	if t < int64(ChannelPing) || t > int64(ChannelMap) {
		return ChannelMessage{}, fmt.Errorf("decode channel message type %d: %w", t, ErrUnknownType)
	}
	m := ChannelMessage{Type: ChannelType(t)}
	switch m.Type {
	case ChannelSDP:
		m.SDP, err = decodeChannelSDP(b)
	case ChannelLoss, ChannelRTT, ChannelJitter:
		m.Value, err = readNumber(b)
	case ChannelLock:
		m.Granted, err = decodeGranted(b)
	case ChannelMap:
		m.Media, err = decodeMedia(b)
	}
	if err != nil {
		return ChannelMessage{}, fmt.Errorf("decode channel message type %d: %w", t, err)
	}
	return m, nil
}

// decodeGranted returns nil for a lock request, which has no payload or nil.
func decodeGranted(b []byte) (*bool, error) {
	if len(b) == 0 || msgp.NextType(b) == msgp.NilType {
		return nil, nil
	}
	v, _, err := msgp.ReadBoolBytes(b)
	if err != nil {
		return nil, err
	}
	return &v, nil
}

func decodeChannelSDP(b []byte) (Description, error) {
	packed, _, err := readData(b)
	if err != nil {
		return Description{}, err
	}
	z, err := zlib.NewReader(bytes.NewReader(packed))
	if err != nil {
		return Description{}, fmt.Errorf("inflate: %w", err)
	}
	// One byte more than allowed, so that decodeJSON sees what is too long.
	data, err := io.ReadAll(io.LimitReader(z, maxJSON+1))
	if err != nil {
		return Description{}, fmt.Errorf("inflate: %w", err)
	}
	return DecodeDescription(data)
}

func decodeMedia(b []byte) (map[string]Media, error) {
	if msgp.NextType(b) != msgp.MapType {
		return nil, errors.New("not a map")
	}
	all := make(map[string]Media)
	err := readMap(b, func(mid string, b []byte) ([]byte, error) {
		after, err := skip(b)
		if err != nil {
			return nil, err
		}
		var m Media
		if err := readStrings(b, map[string]*string{"type": &m.Type, "sender_id": &m.Sender}); err != nil {
			return nil, err
		}
		all[mid] = m
		return after, nil
	})
	return all, err
}

// Append appends the message to dst, its type in the two-byte form and a media
// map in the order of its mids. The error is ErrUnknownType or one of the
// compressor; dst is then returned as it was.
func (m ChannelMessage) Append(dst []byte) ([]byte, error) {
	if m.Type < ChannelPing || m.Type > ChannelMap {
		return dst, fmt.Errorf("encode channel message type %d: %w", m.Type, ErrUnknownType)
	}
	out := append(dst, 0xcc, byte(m.Type)) // uint8 even where a shorter form exists
	switch m.Type {
	case ChannelSDP:
		packed, err := deflate(EncodeDescription(m.SDP))
		if err != nil {
			return dst, fmt.Errorf("encode channel description: %w", err)
		}
		out = msgp.AppendBytes(out, packed)
	case ChannelLoss, ChannelRTT, ChannelJitter:
		out = msgp.AppendFloat64(out, m.Value)
	case ChannelLock:
		if m.Granted != nil {
			out = msgp.AppendBool(out, *m.Granted)
		}
	case ChannelMap:
		out = msgp.AppendMapHeader(out, uint32(len(m.Media)))
		for _, mid := range slices.Sorted(maps.Keys(m.Media)) {
			out = msgp.AppendString(out, mid)
			out = appendStrings(out, "type", m.Media[mid].Type, "sender_id", m.Media[mid].Sender)
		}
	}
	return out, nil
}

func deflate(data []byte) ([]byte, error) {
	var b bytes.Buffer
	z := zlib.NewWriter(&b)
	if _, err := z.Write(data); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
