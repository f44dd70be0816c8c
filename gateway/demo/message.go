package demo

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"sallyport/sfu/wire"
)

const (
	maxMessage   = 64 << 10 // bytes of one message from a browser; a description is by far the largest
	maxCandidate = 2 << 10  // bytes of one ICE candidate
	maxStream    = 128      // bytes of a MediaStream's ID
	maxText      = 40       // characters of a name or a room
)

// A request is what a browser says: one JSON object per WebSocket message.
//
//	join        room, name, dcSignaling,    must be first, unless it is
//	            av1Support
//	resume      session, resume             the same seat after an interruption
//	sdp, ice    data                        for the SFU, passed on verbatim
//	screen_on, video_on      stream         ID of the MediaStream
//	mute, unmute, screen_off, video_off, leave
type request struct {
	Type        string          `json:"type"`
	Room        string          `json:"room"`
	Name        string          `json:"name"`
	DCSignaling bool            `json:"dcSignaling"`
	AV1Support  bool            `json:"av1Support"`
	Session     string          `json:"session"`
	Resume      string          `json:"resume"`
	Stream      string          `json:"stream"`
	Data        json.RawMessage `json:"data"`
}

// A participant is a member as the others see it.
type participant struct {
	Session string `json:"session"`
	Name    string `json:"name"`
	Muted   bool   `json:"muted"`
	Voice   bool   `json:"voice"` // speaks, says the SFU
	Screen  bool   `json:"screen"`
	Video   bool   `json:"video"`
}

// An event is what a browser is told.
//
//	joined        session, resume, room, participants   the answer to join and resume
//	participant   participant                           somebody came or changed
//	left          session
//	signal        data                                  from the SFU, verbatim
//	link          up                                    whether the SFU can be reached
//	error         code, text, fatal                     fatal: the socket is closed
//	ended         text                                  the SFU ended the session
type event struct {
	Type         string          `json:"type"`
	Session      string          `json:"session,omitempty"`
	Resume       string          `json:"resume,omitempty"`
	Room         string          `json:"room,omitempty"`
	Participants []participant   `json:"participants,omitempty"`
	Participant  *participant    `json:"participant,omitempty"`
	Data         json.RawMessage `json:"data,omitempty"`
	Up           *bool           `json:"up,omitempty"`
	Code         string          `json:"code,omitempty"`
	Text         string          `json:"text,omitempty"`
	Fatal        bool            `json:"fatal,omitempty"`
}

// A refusal is an error the browser is told: Code for its program, Text for
// its user.
type refusal struct{ code, text string }

func (r *refusal) Error() string { return r.text }

// parseRequest reads one message of a browser.
func parseRequest(b []byte) (request, error) {
	var r request
	if err := json.Unmarshal(b, &r); err != nil {
		return request{}, &refusal{"bad_message", "That message is not a JSON object of the expected form."}
	}
	if r.Type == "" {
		return request{}, &refusal{"bad_message", "That message has no type."}
	}
	return r, nil
}

// cleanText returns s trimmed, or a refusal if it is empty, too long or not
// printable. what names it to the user.
func cleanText(what, s string) (string, error) {
	s = strings.TrimSpace(s)
	switch n := utf8.RuneCountInString(s); {
	case n == 0:
		return "", &refusal{"bad_" + what, "The " + what + " is empty."}
	case n > maxText:
		return "", &refusal{"bad_" + what, fmt.Sprintf("The %s is longer than %d characters.", what, maxText)}
	}
	unprintable := func(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }
	if strings.ContainsFunc(s, unprintable) {
		return "", &refusal{"bad_" + what, "The " + what + " contains characters that cannot be shown."}
	}
	return s, nil
}

// rtc turns a request into the message for the SFU. ok is false if the request
// is not one of those that are passed on.
func (r request) rtc(session string) (m wire.Message, ok bool, err error) {
	m.Session = session
	switch r.Type {
	case "sdp":
		m.Kind, m.Data = wire.KindSDP, r.Data
		if _, err := wire.DecodeDescription(r.Data); err != nil {
			return m, true, &refusal{"bad_sdp", "That is neither an offer nor an answer."}
		}
	case "ice":
		m.Kind, m.Data = wire.KindICE, r.Data
		if _, err := wire.DecodeCandidate(r.Data); err != nil || len(r.Data) > maxCandidate {
			return m, true, &refusal{"bad_ice", "That is not an ICE candidate."}
		}
	case "mute":
		m.Kind = wire.KindMute
	case "unmute":
		m.Kind = wire.KindUnmute
	case "screen_on":
		m.Kind = wire.KindScreenOn
		m.Data, err = streamData(m.Kind, r.Stream)
	case "screen_off":
		m.Kind = wire.KindScreenOff
	case "video_on":
		m.Kind = wire.KindVideoOn
		m.Data, err = streamData(m.Kind, r.Stream)
	case "video_off":
		m.Kind = wire.KindVideoOff
	default:
		return m, false, nil
	}
	return m, true, err
}

func streamData(k wire.Kind, id string) ([]byte, error) {
	if id == "" || len(id) > maxStream {
		return nil, &refusal{"bad_stream", "A stream needs an ID."}
	}
	return wire.EncodeStream(k, id), nil
}

// errorEvent tells a browser about err: a refusal in its own words, anything
// else without details.
func errorEvent(err error, fatal bool) event {
	var r *refusal
	if !errors.As(err, &r) {
		r = &refusal{"internal", "The server could not do that."}
	}
	return event{Type: "error", Code: r.code, Text: r.text, Fatal: fatal}
}

func (e event) encode() ([]byte, error) {
	b, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encode %s event: %w", e.Type, err)
	}
	return b, nil
}
