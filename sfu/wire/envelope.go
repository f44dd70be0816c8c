package wire

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/tinylib/msgp/msgp"
)

// The types of an Envelope.
const (
	TypeHello     = "hello"     // server → plugin: the first message of a connection
	TypeJoin      = "join"      // plugin → server: create a session
	TypeLeave     = "leave"     // plugin → server: end a session
	TypeReconnect = "reconnect" // plugin → server: speak for the session over this connection from now on
	TypeRTC       = "rtc"       // both ways: a Message of a session
	TypeVAD       = "vad"       // server → plugin: a Message of KindVoiceOn or KindVoiceOff
	TypeClose     = "close"     // server → plugin: the session has ended
)

// maxType is how much of an unknown type string Decode hands back.
const maxType = 32

// Errors a caller branches on.
var (
	// ErrUnknownType means a well-formed envelope of a type not listed here:
	// a newer peer, to be ignored.
	ErrUnknownType = errors.New("unknown message type")
)

// A Kind says what a Message is about. Zero is invalid.
type Kind uint8

// The kinds of messages, and what their Data holds.
const (
	KindICE       Kind = 1  // a candidate: DecodeCandidate, EncodeCandidate
	KindSDP       Kind = 2  // a description: DecodeDescription, EncodeDescription
	KindMute      Kind = 3  // nothing
	KindUnmute    Kind = 4  // nothing
	KindScreenOn  Kind = 5  // the MediaStream's ID: DecodeStream, EncodeStream
	KindScreenOff Kind = 6  // nothing
	KindVoiceOn   Kind = 7  // nothing
	KindVoiceOff  Kind = 8  // nothing
	KindVideoOn   Kind = 9  // the MediaStream's ID: DecodeStream, EncodeStream
	KindVideoOff  Kind = 10 // nothing
)

// A Message is the payload of an rtc or vad envelope.
type Message struct {
	Group   string // client ID of the installation; empty from the plugin
	User    string // empty from the plugin
	Session string // the only routing key
	Call    string // empty from the plugin
	Kind    Kind
	Data    []byte // meaning depends on Kind; nil = none
}

// A Join is the payload of a join envelope.
type Join struct {
	Call, User, Session, Channel string

	AV1         bool // the client can receive AV1 and publishes it beside VP8
	DCSignaling bool // offers of the server go over the data channel
	// AV1Set and DCSet tell false from absent: the session API of the server
	// shows an absent key as null. Append leaves such a key out.
	AV1Set, DCSet bool
}

// An Envelope is one frame between plugin and server. Type says which of the
// other fields mean something.
type Envelope struct {
	Type string // one of TypeHello … TypeClose

	Message  Message // rtc, vad
	Join     Join    // join
	Session  string  // leave, reconnect, close; empty if the peer gave none
	ClientID string  // hello
	ConnID   string  // hello
}

// Decode reads the envelope in a binary frame and ignores bytes after it. The
// envelope keeps no reference to frame.
//
// The error is ErrUnknownType, with Type filled (shortened to 32 bytes), for a
// type it does not know, and another one for anything malformed; none of them
// is a reason to close the connection.
func Decode(frame []byte) (Envelope, error) {
	name, b, err := msgp.ReadStringZC(frame)
	if err != nil {
		return Envelope{}, fmt.Errorf("decode message type: %w", err)
	}
	e := Envelope{Type: string(name[:min(len(name), maxType)])}
	switch string(name) {
	case TypeRTC, TypeVAD:
		e.Message, err = decodeMessage(b)
	case TypeJoin:
		e.Join, err = decodeJoin(b)
	case TypeLeave, TypeReconnect, TypeClose:
		err = readStrings(b, map[string]*string{"sessionID": &e.Session})
	case TypeHello:
		err = readStrings(b, map[string]*string{"clientID": &e.ClientID, "connID": &e.ConnID})
	default:
		return e, ErrUnknownType
	}
	if err != nil {
		return Envelope{Type: e.Type}, fmt.Errorf("decode %s: %w", e.Type, err)
	}
	return e, nil
}

// readStrings fills the named strings from a map and skips its other keys.
func readStrings(b []byte, into map[string]*string) error {
	return readMap(b, func(key string, b []byte) ([]byte, error) {
		s, known := into[key]
		if !known {
			return skip(b)
		}
		var err error
		if *s, b, err = readString(b); err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
		return b, nil
	})
}

func decodeJoin(b []byte) (Join, error) {
	var j Join
	into := map[string]*string{"callID": &j.Call, "userID": &j.User, "sessionID": &j.Session, "channelID": &j.Channel}
	err := readMap(b, func(key string, b []byte) ([]byte, error) {
		if s, known := into[key]; known {
			var err error
			if *s, b, err = readString(b); err != nil {
				return nil, fmt.Errorf("%s: %w", key, err)
			}
			return b, nil
		}
		// Anything but a boolean counts as absent: old plugins sent a map of strings.
		if msgp.NextType(b) == msgp.BoolType {
			switch key {
			case "av1Support":
				j.AV1, _, _ = msgp.ReadBoolBytes(b)
				j.AV1Set = true
			case "dcSignaling":
				j.DCSignaling, _, _ = msgp.ReadBoolBytes(b)
				j.DCSet = true
			}
		}
		return skip(b)
	})
	return j, err
}

// messageKeys is the order of the keys on output, and of the values when the
// payload comes as an array.
var messageKeys = [...]string{"group_id", "user_id", "session_id", "call_id", "type", "data"}

func decodeMessage(b []byte) (Message, error) {
	var m Message
	var err error
	if msgp.NextType(b) == msgp.ArrayType {
		err = m.readArray(b)
	} else {
		err = readMap(b, m.read)
	}
	if err != nil {
		return Message{}, err
	}
	if m.Kind == 0 {
		return Message{}, errors.New("no type")
	}
	return m, nil
}

func (m *Message) readArray(b []byte) error {
	n, b, err := msgp.ReadArrayHeaderBytes(b)
	if err != nil {
		return err
	}
	if n != uint32(len(messageKeys)) {
		return fmt.Errorf("array of %d values, want %d", n, len(messageKeys))
	}
	for _, key := range messageKeys {
		if b, err = m.read(key, b); err != nil {
			return err
		}
	}
	return nil
}

// read takes the value of one key from b and returns what follows it.
func (m *Message) read(key string, b []byte) ([]byte, error) {
	var err error
	switch key {
	case "group_id":
		m.Group, b, err = readString(b)
	case "user_id":
		m.User, b, err = readString(b)
	case "session_id":
		m.Session, b, err = readString(b)
	case "call_id":
		m.Call, b, err = readString(b)
	case "type":
		var k int64
		if k, b, err = msgp.ReadInt64Bytes(b); err == nil && (k < int64(KindICE) || k > int64(KindVideoOff)) {
			err = fmt.Errorf("%d is none of 1 to 10", k)
		}
		m.Kind = Kind(k)
	case "data":
		var data []byte
		data, b, err = readData(b)
		m.Data = nil
		if len(data) > 0 {
			m.Data = bytes.Clone(data)
		}
	default:
		return skip(b)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return b, nil
}

// Append appends the envelope's frame to dst. Fields its type does not use are
// ignored. The error is ErrUnknownType or names the message's invalid kind;
// dst is then returned as it was.
func (e Envelope) Append(dst []byte) ([]byte, error) {
	switch e.Type {
	case TypeRTC, TypeVAD:
		if e.Message.Kind < KindICE || e.Message.Kind > KindVideoOff {
			return dst, fmt.Errorf("encode %s: type %d is none of 1 to 10", e.Type, e.Message.Kind)
		}
		return e.Message.append(msgp.AppendString(dst, e.Type)), nil
	case TypeJoin:
		return e.Join.append(msgp.AppendString(dst, e.Type)), nil
	case TypeLeave, TypeReconnect, TypeClose:
		return appendStrings(msgp.AppendString(dst, e.Type), "sessionID", e.Session), nil
	case TypeHello:
		return appendStrings(msgp.AppendString(dst, e.Type), "clientID", e.ClientID, "connID", e.ConnID), nil
	}
	return dst, fmt.Errorf("encode %q: %w", e.Type, ErrUnknownType)
}

// appendStrings appends a map of strings given as key, value, key, value….
func appendStrings(dst []byte, pairs ...string) []byte {
	dst = msgp.AppendMapHeader(dst, uint32(len(pairs)/2))
	for _, s := range pairs {
		dst = msgp.AppendString(dst, s)
	}
	return dst
}

func (j Join) append(dst []byte) []byte {
	n := uint32(4)
	if j.AV1 || j.AV1Set {
		n++
	}
	if j.DCSignaling || j.DCSet {
		n++
	}
	dst = msgp.AppendMapHeader(dst, n)
	for _, s := range [...]string{"callID", j.Call, "userID", j.User, "sessionID", j.Session, "channelID", j.Channel} {
		dst = msgp.AppendString(dst, s)
	}
	if j.AV1 || j.AV1Set {
		dst = msgp.AppendBool(msgp.AppendString(dst, "av1Support"), j.AV1)
	}
	if j.DCSignaling || j.DCSet {
		dst = msgp.AppendBool(msgp.AppendString(dst, "dcSignaling"), j.DCSignaling)
	}
	return dst
}

// append writes the keys in their fixed order; empty data is left out.
func (m Message) append(dst []byte) []byte {
	n := uint32(len(messageKeys))
	if len(m.Data) == 0 {
		n--
	}
	dst = msgp.AppendMapHeader(dst, n)
	for i, s := range [...]string{m.Group, m.User, m.Session, m.Call} {
		dst = msgp.AppendString(msgp.AppendString(dst, messageKeys[i]), s)
	}
	dst = msgp.AppendUint64(msgp.AppendString(dst, "type"), uint64(m.Kind))
	if len(m.Data) > 0 {
		dst = msgp.AppendBytes(msgp.AppendString(dst, "data"), m.Data)
	}
	return dst
}
