package sfu

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/pion/webrtc/v3"
)

// crowd makes a call of n sessions of which nothing runs.
func crowd(n int) (*call, []*Session) {
	c := newCall("call", 0)
	all := make([]*Session, n)
	for i := range all {
		all[i] = newSession(&Server{log: discard}, c, Member{Session: fmt.Sprint(i), AV1: i%2 == 0}, nil)
		c.add(all[i])
	}
	return c, all
}

// speak makes s publish a track of a class.
func (c *call) speak(s *Session, class string) *up {
	u := &up{session: s, track: &webrtc.TrackRemote{}, began: time.Now()}
	u.class.Store(&upClass{class: class})
	c.mu.Lock()
	defer c.mu.Unlock()
	s.ups = append(s.ups, u)
	c.changed(s)
	return u
}

// woken lists the sessions that have been woken since the last time.
func woken(all []*Session) (out []int) {
	for i, s := range all {
		select {
		case <-s.woken:
			out = append(out, i)
		default:
		}
	}
	return out
}

func TestOnlyWhatIsPublishedWakes(t *testing.T) {
	c, all := crowd(50)
	if w := woken(all); len(w) > 0 {
		t.Errorf("joining woke %v", w)
	}
	u := c.speak(all[7], classVoice)
	if w := woken(all); len(w) != 49 || slices.Contains(w, 7) {
		t.Errorf("a new voice woke %v, want everybody but its own", w)
	}
	c.mute(all[7], true)
	c.reconsider(u)
	c.announceVideo(all[9], "camera") // whose track is not there yet
	for _, s := range all[10:] {
		c.remove(s)
	}
	if w := woken(all); len(w) > 0 {
		t.Errorf("what nobody sees woke %v", w)
	}
	if n := c.remove(all[7]); n != 9 {
		t.Errorf("%d sessions left, want 9", n)
	}
	if w := woken(all); !slices.Equal(w, []int{0, 1, 2, 3, 4, 5, 6, 8, 9}) {
		t.Errorf("the end of the voice woke %v", w)
	}
	if p := c.published(); len(p) != 0 {
		t.Errorf("still published: %v", p)
	}
}

func TestWantedIsInTheOrderOfJoining(t *testing.T) {
	c, all := crowd(6)
	classOf := map[int][]string{4: {classScreen, classVoice}, 1: {classVoice}, 3: {classVideo}}
	ups := map[*up]string{}
	for _, i := range []int{4, 1, 3} {
		for _, class := range classOf[i] {
			ups[c.speak(all[i], class)] = fmt.Sprint(i, class)
		}
	}
	names := func(s *Session) (out []string) {
		for _, u := range c.wanted(s) {
			out = append(out, ups[u])
		}
		return out
	}
	if got, want := names(all[0]), []string{"1voice", "3video", "4voice", "4screen"}; !slices.Equal(got, want) {
		t.Errorf("wanted %v, want %v", got, want)
	}
	c.remove(all[3])
	newer := c.speak(all[1], classVoice)
	ups[newer] = "1newer"
	if got, want := names(all[4]), []string{"1newer"}; !slices.Equal(got, want) {
		t.Errorf("wanted %v, want %v", got, want)
	}
}

// BenchmarkComeAndGo is what it costs a call when somebody who publishes nothing
// joins and leaves, by the size of the call.
func BenchmarkComeAndGo(b *testing.B) {
	for _, size := range []int{10, 100, 1000, 10_000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			c, all := crowd(size)
			c.speak(all[0], classVoice)
			s := newSession(&Server{log: discard}, c, Member{Session: "visitor"}, nil)
			b.ReportAllocs()
			for b.Loop() {
				c.add(s)
				if len(c.wanted(s)) != 1 {
					b.Fatal("the voice is missing")
				}
				c.remove(s)
			}
		})
	}
}
