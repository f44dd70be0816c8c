package sfu

import (
	"sync"
	"testing"
	"time"

	"sallyport/sfu/internal/batch"
	"sallyport/sfu/internal/packetcache"
	"sallyport/sfu/internal/srtp"
	"sallyport/sfu/internal/steer"
)

// newStage makes a server of which the media sockets are read as in life, until
// the test ends. Legs and speakers are its participants.
func newStage(t testing.TB, o batch.Options) *Server {
	t.Helper()
	socks, err := listen(Config{UDP: "127.0.0.1:0", TCP: "127.0.0.1:0"}, "", o)
	if err != nil {
		t.Fatal(err)
	}
	srv, err := New(socks, Options{})
	if err != nil {
		t.Fatal(err)
	}
	var readers sync.WaitGroup
	for _, s := range srv.mux.sockets {
		readers.Go(func() { srv.mux.read(s) })
	}
	t.Cleanup(func() {
		_, _ = srv.tcp.Close(), srv.mux.Close()
		readers.Wait()
	})
	return srv
}

// shows sends packets through the speaker's own socket.
func (s *speaker) shows(t testing.TB, packets int) {
	to := s.srv.mux.sockets[0].local
	for range packets {
		if _, err := s.conn.WriteToUDPAddrPort(s.next(t), to); err != nil {
			t.Fatal(err)
		}
	}
}

// newCamera is newSpeaker of one who publishes video in one encoding.
func newCamera(t testing.TB, srv *Server, profile srtp.Profile) *speaker {
	t.Helper()
	s := newSpeaker(t, srv, profile, classVideo)
	s.body = make([]byte, 1000)
	s.up.mu.Lock()
	defer s.up.mu.Unlock()
	s.up.cache = packetcache.New(cacheBytes, packetcache.Memory)
	return s
}

// newLayer is newCamera of one layer of a screen. Its first packets are those of a
// key frame, which delta ends.
func newLayer(t testing.TB, srv *Server, profile srtp.Profile) *speaker {
	t.Helper()
	s, of := newCamera(t, srv, profile), &layers{}
	of.add(&encoding{up: s.up, of: of})
	copy(s.body, []byte{0x90, 0xE0, 0x80, 7, 9, 0x20, 0})
	srv.chooser = func() chooser { return lowest{} }
	return s
}

// delta makes further packets those of no key frame.
func (s *speaker) delta() { s.body[6] = 1 }

// lowest is a chooser that knows one layer.
type lowest struct{}

func (lowest) Decide(steer.Sample) steer.Order { return steer.Order{} }

// watches makes the leg a receiver of video that asks for lost packets, and has
// transport-wide numbers in an extension if that is not 0 and there are layers.
func (l *leg) watches(s *speaker, ssrc uint32, number uint8) *down {
	l.t.Helper()
	d := &down{up: s.up, session: l.media.session, lost: l.srv.metrics.errors.WithLabelValues("g", "rtp")}
	o := &outgoing{ssrc: ssrc, kind: 96, nack: true, number: number}
	if e := s.up.layer.Load(); e != nil {
		if number != 0 {
			l.media.path.begin()
			l.t.Cleanup(l.media.path.close)
		}
		d.choice = newChoice(e.of, l.media.session)
		d.choice.decideAt = time.Now().Add(time.Hour) // what is done now and then is not what a packet costs
	}
	d.bound.Store(l.stream(o))
	d.fan().add(d)
	return d
}
