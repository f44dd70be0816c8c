package sfu

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/webrtc/v3"

	"sallyport/sfu/internal/loudest"
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
//
// What it costs a call when somebody comes or goes must not grow with its size,
// or a large one could never form. So whoever publishes nothing concerns nobody,
// and what is published stands in one list that all share: it is replaced where
// it has changed, and whoever wants to know what to receive reads it without a
// lock.
type call struct {
	id      string
	loudest *loudest.Selector

	list atomic.Pointer[[]published] // replaced under mu, never modified; nil is empty

	mu       sync.Mutex // guards the following, and the fields of Session and up that say so
	sessions map[*Session]struct{}
	joins    uint64   // sessions there have been
	screen   *Session // who shares a screen; nil if nobody does
}

// A published is what a participant publishes of one class: the newest track,
// and the newest in AV1, of which every receiver gets one. One of them may be nil.
type published struct {
	by            *Session
	class         string
	plain, modern *up
}

// newCall makes a call in which the given number of speakers is heard at a time,
// everybody if that is 0.
func newCall(id string, speakers int) *call {
	return &call{id: id, sessions: map[*Session]struct{}{}, loudest: loudest.New(speakers)}
}

func (c *call) add(s *Session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.joins++
	s.number = c.joins
	c.sessions[s] = struct{}{}
}

// remove takes s and its tracks out and returns how many sessions are left.
func (c *call) remove(s *Session) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.sessions, s)
	if c.screen == s {
		c.screen = nil
	}
	s.left, s.ups = true, nil
	c.changed(s)
	return len(c.sessions)
}

// ordered lists the sessions in the order of joining. It needs c.mu.
func (c *call) ordered() []*Session {
	return slices.SortedFunc(maps.Keys(c.sessions), func(a, b *Session) int { return cmp.Compare(a.number, b.number) })
}

func (c *call) members() []Member {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]Member, 0, len(c.sessions))
	for s := range c.sessions {
		out = append(out, s.member)
	}
	return out
}

// changed puts into the list what s publishes now. If that is something else than
// before, everybody but s is woken. It needs c.mu, and everything about the tracks
// must be said by then: the list is read without it.
func (c *call) changed(s *Session) {
	old := c.published()
	from, _ := slices.BinarySearchFunc(old, s.number, func(p published, n uint64) int { return cmp.Compare(p.by.number, n) })
	to := from
	for to < len(old) && old[to].by == s {
		to++
	}
	now := publishes(s)
	if slices.Equal(old[from:to], now) {
		return
	}
	next := slices.Concat(old[:from], now, old[to:])
	c.list.Store(&next)
	for r := range c.sessions {
		if r != s {
			r.wake()
		}
	}
}

// published returns what is published in the call, in the order in which the
// publishers joined, not to be modified.
func (c *call) published() []published {
	if l := c.list.Load(); l != nil {
		return *l
	}
	return nil
}

// publish adds a track that has begun to arrive.
func (c *call) publish(u *up) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if u.session.left {
		return // it ended meanwhile
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
	if k := u.class.Load(); k != nil && k.voice != nil {
		k.voice.Leave()
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
	}
	joinLayers(s.ups)
	c.changed(s)
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

// mute stops or resumes the voice of s and reports whether its levels are heard.
func (c *call) mute(s *Session, muted bool) (heard bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.muted = muted
	for _, u := range s.ups {
		if u.kind() == classVoice {
			if muted {
				u.deaf.Store(true) // until the next packet, whenever that comes
			}
			u.on.Store(!muted)
			heard = heard || u.level != 0
		}
	}
	for other := range c.sessions {
		if other != s && other.crowded.Load() {
			other.wake()
		}
	}
	return heard
}

// wanted lists the tracks that r should receive, publisher by publisher: the AV1
// one for those who have it, if there is one, else the other (rtcd protocol
// §4.11). Only r's own goroutine calls it.
func (c *call) wanted(r *Session) []*up {
	all := c.published()
	out := make([]*up, 0, len(all))
	for _, p := range all {
		switch {
		case p.by == r:
		case p.modern != nil && r.member.AV1 && !r.noAV1 && p.by.member.AV1:
			out = append(out, p.modern)
		case p.plain != nil:
			out = append(out, p.plain)
		}
	}
	return out
}

// publishes lists what s publishes, class by class. It needs call.mu.
func publishes(s *Session) []published {
	var out []published
	for _, class := range classes {
		p := published{by: s, class: class}
		for _, u := range s.ups {
			switch {
			case u.retired || u.kind() != class || !u.forwardable():
			case u.mime() == webrtc.MimeTypeAV1:
				p.modern = u
			default:
				p.plain = u
			}
		}
		if p.plain != nil || p.modern != nil {
			out = append(out, p)
		}
	}
	return out
}
