package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// maxJSON bounds the JSON text of one message. Browsers' descriptions are
// limited to 64 KiB on their way through Mattermost; ours may be longer.
const maxJSON = 1 << 20

// A Description is an SDP offer or answer.
type Description struct {
	Type string `json:"type"` // "offer" or "answer"
	SDP  string `json:"sdp"`
}

// A Candidate is an ICE candidate in the form of the browsers'
// RTCIceCandidateInit.
type Candidate struct {
	Candidate        string  `json:"candidate"` // empty = end of candidates
	SDPMid           *string `json:"sdpMid"`
	SDPMLineIndex    *uint16 `json:"sdpMLineIndex"`
	UsernameFragment *string `json:"usernameFragment"`
}

// EncodeCandidate returns the data of a KindICE message from server to plugin:
// the candidate wrapped in an object whose type member tells the browser what
// it has got. The other way it goes unwrapped: EncodeBareCandidate.
func EncodeCandidate(c Candidate) []byte {
	return encodeJSON(struct {
		Candidate Candidate `json:"candidate"`
		Type      string    `json:"type"`
	}{c, "candidate"})
}

// EncodeBareCandidate returns the data of a KindICE message from plugin to
// server.
func EncodeBareCandidate(c Candidate) []byte { return encodeJSON(c) }

// DecodeCandidate reads the data of a KindICE message of either direction.
func DecodeCandidate(data []byte) (Candidate, error) {
	var outer struct {
		Candidate json.RawMessage `json:"candidate"`
	}
	if err := decodeJSON(data, &outer); err != nil {
		return Candidate{}, fmt.Errorf("decode candidate: %w", err)
	}
	if bytes.HasPrefix(outer.Candidate, []byte("{")) {
		data = outer.Candidate
	}
	var c Candidate
	if err := decodeJSON(data, &c); err != nil {
		return Candidate{}, fmt.Errorf("decode candidate: %w", err)
	}
	return c, nil
}

// EncodeDescription returns the data of a KindSDP message.
func EncodeDescription(d Description) []byte { return encodeJSON(d) }

// DecodeDescription reads the data of a KindSDP message. Types other than
// offer and answer are an error; the SDP itself is not looked at.
func DecodeDescription(data []byte) (Description, error) {
	var d Description
	if err := decodeJSON(data, &d); err != nil {
		return Description{}, fmt.Errorf("decode description: %w", err)
	}
	if d.Type != "offer" && d.Type != "answer" {
		return Description{}, fmt.Errorf("decode description: type %.20q is neither offer nor answer", d.Type)
	}
	return d, nil
}

// stream is the data of KindScreenOn or KindVideoOn.
type stream struct {
	Screen string `json:"screenStreamID,omitempty"`
	Video  string `json:"videoStreamID,omitempty"`
}

// EncodeStream returns the data of a KindScreenOn or KindVideoOn message that
// announces the MediaStream called id.
func EncodeStream(k Kind, id string) []byte {
	if k == KindScreenOn {
		return encodeJSON(stream{Screen: id})
	}
	return encodeJSON(stream{Video: id})
}

// DecodeStream reads the MediaStream's ID from the data of a message of kind
// KindScreenOn or KindVideoOn. A missing ID is an error.
func DecodeStream(k Kind, data []byte) (string, error) {
	var s stream
	if err := decodeJSON(data, &s); err != nil {
		return "", fmt.Errorf("decode stream: %w", err)
	}
	id := s.Video
	if k == KindScreenOn {
		id = s.Screen
	}
	if id == "" {
		return "", errors.New("decode stream: no stream ID")
	}
	return id, nil
}

func decodeJSON(data []byte, v any) error {
	if len(data) > maxJSON {
		return fmt.Errorf("%d bytes are more than %d", len(data), maxJSON)
	}
	return json.Unmarshal(data, v)
}

// encodeJSON encodes one of this package's structs of strings and numbers.
func encodeJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil { // impossible for these types
		panic("wire: " + err.Error())
	}
	return b
}
