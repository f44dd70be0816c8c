package sfu

import (
	"slices"
	"sync"
	"time"

	"github.com/pion/webrtc/v3"
)

// The classes of a published track: the type field of its track ID and of the
// media map (rtcd protocol §4.7). A track nobody has announced has none and is
// not forwarded.
const (
	classVoice       = "voice"
	classScreen      = "screen"
	classScreenAudio = "screen-audio"
	classVideo       = "video"
)

// classes in the order in which a publisher's tracks are offered.
var classes = []string{classVoice, classScreen, classScreenAudio, classVideo}

// soundHold is how long a second audio track of a participant waits for the
// announcement of a screen share before it counts as a new voice.
const soundHold = 2 * time.Second

// A call is a set of sessions that hear and see each other.
type call struct {
	id string

	mu       sync.Mutex // guards the following, and the fields of Session and up that say so
	sessions []*Session // in the order of joining
	screen   *Session   // who shares a screen; nil if nobody does
}

func (c *call) add(s *Session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sessions = append(c.sessions, s)
}

// remove takes s and its tracks out and returns how many sessions are left.
func (c *call) remove(s *Session) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sessions = slices.DeleteFunc(c.sessions, func(x *Session) bool { return x == s })
	if c.screen == s {
		c.screen = nil
	}
	s.ups = nil
	c.changed(s)
	return len(c.sessions)
}

func (c *call) members() []Member {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]Member, 0, len(c.sessions))
	for _, s := range c.sessions {
		out = append(out, s.member)
	}
	return out
}

// changed wakes everybody but by: what they should receive may have changed. It
// needs c.mu.
func (c *call) changed(by *Session) {
	for _, s := range c.sessions {
		if s != by {
			s.wake()
		}
	}
}

// publish adds a track that has begun to arrive.
func (c *call) publish(u *up) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.Contains(c.sessions, u.session) {
		return // the session ended meanwhile
	}
	u.session.ups = append(u.session.ups, u)
	c.classify(u.session)
	if u.audio() && u.class.Load() == nil {
		time.AfterFunc(soundHold, func() { c.reconsider(u) })
	}
}

// unpublish removes a track that has ended.
func (c *call) unpublish(u *up) {
	c.mu.Lock()
	defer c.mu.Unlock()
	u.session.ups = slices.DeleteFunc(u.session.ups, func(x *up) bool { return x == u })
	if e := u.layer.Load(); e != nil {
		e.of.remove(e)
	}
	c.changed(u.session)
}

// classify gives a class to the tracks of s that have none and are announced by
// now. A class once given stays: the announced ID may change while the track
// goes on (a camera that was off for a while). It needs c.mu.
func (c *call) classify(s *Session) {
	for _, u := range s.ups {
		if u.class.Load() != nil || !u.forwardable() && !u.layered() {
			continue
		}
		stream, class := u.track.StreamID(), ""
		sharing := c.screen == s && stream == s.screenStream
		switch {
		case u.audio() && sharing:
			class = classScreenAudio
		case u.audio() && c.holds(s, u):
			continue
		case u.audio():
			class = classVoice
		case sharing:
			class = classScreen
		case !u.forwardable():
			continue // only screens have layers
		case s.videoStream != "" && stream == s.videoStream:
			class = classVideo
		default:
			continue
		}
		u.classify(class)
		c.changed(s)
	}
	joinLayers(s.ups)
}

// holds reports whether an audio track should wait before it is taken for a
// voice: the session has one, so this is probably the sound of a screen whose
// announcement is still on its way. It needs c.mu.
func (c *call) holds(s *Session, u *up) bool {
	for _, other := range s.ups {
		if other.kind() == classVoice && !other.retired {
			return time.Since(u.began) < soundHold
		}
	}
	return false
}

// reconsider classifies a track that was held, if it is still there.
func (c *call) reconsider(u *up) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.classify(u.session)
}

// shareScreen makes s the one who shares, under the given MediaStream ID. It
// reports whether nobody else does.
func (c *call) shareScreen(s *Session, stream string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.screen != nil && c.screen != s {
		return false
	}
	c.screen, s.screenStream = s, stream
	c.classify(s)
	return true
}

// endScreen ends the share of s, if it is the one who shares: its tracks are not
// offered any longer.
func (c *call) endScreen(s *Session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.screen != s {
		return
	}
	c.screen, s.screenStream = nil, ""
	for _, u := range s.ups {
		if k := u.kind(); k == classScreen || k == classScreenAudio {
			u.retired = true
		}
	}
	c.changed(s)
}

// announceVideo names the MediaStream of the camera of s.
func (c *call) announceVideo(s *Session, stream string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.videoStream = stream
	c.classify(s)
}

// wanted lists the tracks that r should receive, publisher by publisher. Only
// r's own goroutine calls it.
func (c *call) wanted(r *Session) []*up {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []*up
	for _, s := range c.sessions {
		if s == r {
			continue
		}
		for _, class := range classes {
			if u := choose(s.ups, class, r.member.AV1 && !r.noAV1 && s.member.AV1); u != nil {
				out = append(out, u)
			}
		}
	}
	return out
}

// choose returns the newest track of a class: the AV1 one for those who have
// it, if there is one, else the other (rtcd protocol §4.11).
func choose(ups []*up, class string, av1 bool) *up {
	var plain, modern *up
	for _, u := range ups {
		switch {
		case u.retired || u.kind() != class || !u.forwardable():
		case u.mime() == webrtc.MimeTypeAV1:
			modern = u
		default:
			plain = u
		}
	}
	if av1 && modern != nil {
		return modern
	}
	return plain
}
