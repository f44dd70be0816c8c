package peer

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/webrtc/v3"

	"sallyport/sfu/wire"
)

func TestJoinAndLeave(t *testing.T) {
	r := newRig(t)
	closed := make(chan error, 1)
	p, s := r.enter(Config{AV1: true, OnClosed: func(err error) { closed <- err }})
	if s.join.Call != "call" || !s.join.AV1 || s.join.DCSignaling || len(s.join.User) != 26 || len(s.join.Channel) != 26 {
		t.Errorf("joined with %+v", s.join)
	}
	if p.JoinTime() <= 0 || p.OpenTime() < p.JoinTime() {
		t.Errorf("connected after %v, channel open after %v", p.JoinTime(), p.OpenTime())
	}
	sel, err := p.Selected()
	if err != nil || sel.Path != UDP || sel.LocalType == "relay" {
		t.Errorf("selected %v, %v; want udp", sel, err)
	}
	if locks, unlocks := s.counts(); locks != 0 || unlocks != 0 {
		t.Errorf("joining took %d locks and gave %d back", locks, unlocks)
	}
	if err := p.Leave(within(t)); err != nil {
		t.Error(err)
	}
	if err := receive(t, closed, "OnClosed"); !errors.Is(err, ErrEnded) || !errors.Is(p.Err(), ErrEnded) {
		t.Errorf("closed with %v, Err %v; want ErrEnded", err, p.Err())
	}
	if _, err := Join(t.Context(), p.mux, Config{Path: TURNTLS}); !errors.Is(err, errNoServer) {
		t.Errorf("Join without a TURN server: %v", err)
	}
}

func TestSessionOfAnotherPeer(t *testing.T) {
	r := newRig(t)
	p, _ := r.enter(Config{})
	if _, err := Join(t.Context(), p.mux, Config{Session: p.Session()}); !errors.Is(err, errDuplicate) {
		t.Errorf("second peer of a session: %v, want errDuplicate", err)
	}
}

func TestJoinUnanswered(t *testing.T) {
	r := newRig(t)
	m, err := DialMux(t.Context(), r.config())
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	// No candidate of the server's is on this port, so ICE finds no way.
	_, err = Join(ctx, m, Config{Call: "call", Port: 9})
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "local candidates") {
		t.Errorf("Join without a way: %v", err)
	}
	r.expect(wire.TypeLeave, 0)
}

func TestUnmuteSendsStampedOpus(t *testing.T) {
	for _, dc := range []bool{false, true} {
		r := newRig(t)
		p, s := r.enter(Config{DCSignaling: dc})
		s.mu.Lock()
		s.refuse = 2 // the peer has to ask again
		s.mu.Unlock()
		if err := p.Unmute(within(t)); err != nil {
			t.Fatal(err)
		}
		r.expect(wire.TypeRTC, wire.KindUnmute)
		track := receive(t, s.tracks, "the voice track")
		checkAudio(t, track)
		if err := p.Mute(); err != nil {
			t.Fatal(err)
		}
		r.expect(wire.TypeRTC, wire.KindMute)
		sent := p.Sent(voice).Packets
		if err := p.Unmute(within(t)); err != nil {
			t.Fatal(err)
		}
		r.expect(wire.TypeRTC, wire.KindUnmute)
		if locks, _ := s.counts(); locks != 3 {
			t.Errorf("dc %v: asked for the lock %d times, want 3: only the first unmute negotiates", dc, locks)
		}
		for range 3 {
			if _, _, err := track.ReadRTP(); err != nil {
				t.Fatal(err)
			}
		}
		if again := p.Sent(voice).Packets; again <= sent {
			t.Errorf("dc %v: %d packets sent before muting, %d after unmuting", dc, sent, again)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
}

// checkAudio reads a second of audio and looks into it.
func checkAudio(t *testing.T, track *webrtc.TrackRemote) {
	t.Helper()
	var last rtp.Packet
	levels := map[byte]int{}
	for i := range 20 {
		p, _, err := track.ReadRTP()
		if err != nil {
			t.Fatal(err)
		}
		st, ok := readStamp(p.Payload)
		if !ok || p.Payload[0] != 0xbb || p.Payload[2] != stampSize {
			t.Fatalf("payload %x is no stamped Opus frame", p.Payload)
		}
		if age := time.Duration(now() - st.sent); age < 0 || age > 5*time.Second {
			t.Errorf("packet is %v old", age)
		}
		if i > 0 && (p.SequenceNumber != last.SequenceNumber+1 || p.Timestamp != last.Timestamp+960) {
			t.Errorf("packet %d at %d follows %d at %d", p.SequenceNumber, p.Timestamp, last.SequenceNumber, last.Timestamp)
		}
		if ids := p.GetExtensionIDs(); len(ids) == 1 {
			levels[p.GetExtension(ids[0])[0]]++
		}
		last = *p
	}
	if levels[30] == 0 || levels[95] == 0 {
		t.Errorf("audio levels %v, want those of speech", levels)
	}
}

func TestReceiveTracks(t *testing.T) {
	for _, dc := range []bool{false, true} {
		r := newRig(t)
		seen := make(chan *Track, 2)
		p, s := r.enter(Config{DCSignaling: dc, Feedback: true, OnTrack: func(t *Track) { seen <- t }})
		other := NewID()
		src := s.offer(voice, other)
		s.answered()
		tr, err := p.WaitTrack(within(t), voice, other)
		if err != nil {
			t.Fatal(err)
		}
		if receive(t, seen, "OnTrack") != tr {
			t.Errorf("OnTrack got another track")
		}
		if want := (wire.Media{Type: voice, Sender: other}); tr.Announced != want || tr.Mid == "" || p.Media()[tr.Mid] != want {
			t.Errorf("track on mid %q announced as %+v, map %v", tr.Mid, tr.Announced, p.Media())
		}
		if err := tr.WaitPackets(within(t), 25); err != nil {
			t.Fatal(err)
		}
		if st := tr.Stats(); st.Lost+st.Duplicates+st.Foreign != 0 || st.Measured < 25 || st.Latency.Percentile(.5) > time.Second {
			t.Errorf("voice: %+v", st)
		}
		await(t, "count of the packets sent", func() bool { return src.counts().Packets >= 25 })
		video := s.offer(screen, other)
		s.answered()
		vt, err := p.WaitTrack(within(t), screen, other)
		if err != nil {
			t.Fatal(err)
		}
		if err := vt.WaitPackets(within(t), 20); err != nil {
			t.Fatal(err)
		}
		before := video.counts().KeyFrames
		if err := vt.RequestKeyFrame(); err != nil {
			t.Fatal(err)
		}
		await(t, "a key frame", func() bool { return video.counts().KeyFrames > before && vt.Stats().KeyFrames > 0 })
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		if !tr.Ended() || !vt.Ended() {
			t.Errorf("tracks outlive the peer")
		}
	}
}

// await polls for what nothing announces.
func await(t *testing.T, what string, met func() bool) {
	t.Helper()
	for ctx := within(t); !met(); {
		select {
		case <-ctx.Done():
			t.Fatalf("no %s", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func TestScreenAndCamera(t *testing.T) {
	r := newRig(t)
	p, s := r.enter(Config{AV1: true})
	if err := p.StopScreen(within(t)); !errors.Is(err, errNotSharing) {
		t.Errorf("StopScreen: %v", err)
	}
	for range 2 { // twice, to see that what was taken away can come again
		if err := p.ShareScreen(within(t), Video{Bitrate: 300_000, Sound: true}); err != nil {
			t.Fatal(err)
		}
		on := r.expect(wire.TypeRTC, wire.KindScreenOn)
		id, err := wire.DecodeStream(wire.KindScreenOn, on.Message.Data)
		if err != nil {
			t.Fatal(err)
		}
		mimes := map[string]bool{}
		for range 3 {
			tr := receive(t, s.tracks, "a track of the screen")
			if tr.StreamID() != id {
				t.Errorf("track of stream %s, announced was %s", tr.StreamID(), id)
			}
			mimes[tr.Codec().MimeType] = true
		}
		if len(mimes) != 3 {
			t.Errorf("codecs %v, want Opus, VP8 and AV1", mimes)
		}
		if err := p.ShareScreen(within(t), Video{}); !errors.Is(err, errSharing) {
			t.Errorf("ShareScreen twice: %v", err)
		}
		if err := p.StopScreen(within(t)); err != nil {
			t.Fatal(err)
		}
		r.expect(wire.TypeRTC, wire.KindScreenOff)
	}
	if sent := p.Sent(screen); sent.Packets == 0 || sent.KeyFrames == 0 || p.Sent(screenAudio).Packets == 0 {
		t.Errorf("sent %+v of the screen and %+v of its sound", sent, p.Sent(screenAudio))
	}
	locks, _ := s.counts()
	var ids []string
	for range 2 {
		if err := p.CameraOn(within(t), Video{}); err != nil {
			t.Fatal(err)
		}
		on := r.expect(wire.TypeRTC, wire.KindVideoOn)
		id, err := wire.DecodeStream(wire.KindVideoOn, on.Message.Data)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
		if err := p.CameraOff(); err != nil {
			t.Fatal(err)
		}
		r.expect(wire.TypeRTC, wire.KindVideoOff)
	}
	if ids[0] == ids[1] {
		t.Errorf("camera went on twice as stream %s", ids[0])
	}
	if now, _ := s.counts(); now != locks+2 {
		t.Errorf("the camera took %d locks, want 2: one for each codec", now-locks)
	}
}

// The lock keeps offers from colliding. If a server offers nevertheless, its
// offer waits until ours has been answered.
func TestGlareWaits(t *testing.T) {
	r := newRig(t)
	p, s := r.enter(Config{DCSignaling: true})
	s.mu.Lock()
	s.glare = true
	s.mu.Unlock()
	if err := p.Unmute(within(t)); err != nil {
		t.Fatal(err)
	}
	if d := s.answered(); !strings.Contains(d.SDP, "m=audio") {
		t.Errorf("the held offer was answered before ours was:\n%s", d.SDP)
	}
	if st := p.pc.SignalingState(); st != webrtc.SignalingStateStable {
		t.Errorf("signalling state %v, want stable", st)
	}
}

func TestLateLockIsGivenBack(t *testing.T) {
	r := newRig(t)
	p, s := r.enter(Config{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.askLock(ctx); err != nil { // granted or given up, as it happens
		await(t, "the lock to be given back", func() bool {
			locks, unlocks := s.counts()
			return locks == 1 && unlocks == 1
		})
	}
	// An answer that nobody waits for.
	if err := p.lockAnswered(false); err != nil {
		t.Error(err)
	}
	_, before := s.counts()
	if err := p.lockAnswered(true); err != nil {
		t.Error(err)
	}
	await(t, "the lock to be given back", func() bool { _, n := s.counts(); return n == before+1 })
}

func TestLockHeld(t *testing.T) {
	r := newRig(t)
	p, s := r.enter(Config{})
	s.mu.Lock()
	s.locked = true
	s.mu.Unlock()
	began := time.Now()
	err := p.Unmute(within(t))
	if took := time.Since(began); !errors.Is(err, ErrLocked) || took < lockTimeout || took > 3*lockTimeout {
		t.Errorf("Unmute with the lock held: %v after %v", err, took)
	}
	if p.Err() != nil {
		t.Errorf("the peer ended: %v", p.Err())
	}
}

func TestVoiceEvents(t *testing.T) {
	r := newRig(t)
	heard := make(chan bool, 2)
	p, s := r.enter(Config{OnVoice: func(on bool) { heard <- on }})
	s.rtc(wire.KindVoiceOn, nil)
	if !receive(t, heard, "voice on") {
		t.Error("voice off came first")
	}
	if err := p.Wait(within(t), p.Voice); err != nil {
		t.Error(err)
	}
	s.rtc(wire.KindVoiceOff, nil)
	if err := p.Wait(within(t), func() bool { return !p.Voice() }); err != nil || receive(t, heard, "voice off") {
		t.Errorf("voice still on, %v", err)
	}
}

func TestPingMeasuresRTT(t *testing.T) {
	r := newRig(t)
	p, _ := r.enter(Config{})
	await(t, "a round trip time as of one machine", func() bool { return p.RTT() > 0 && p.RTT() < time.Second })
}

func TestServerEndsSession(t *testing.T) {
	r := newRig(t)
	p, s := r.enter(Config{})
	if err := p.Unmute(within(t)); err != nil {
		t.Fatal(err)
	}
	r.send(wire.Envelope{Type: wire.TypeClose, Session: s.session})
	receive(t, p.Done(), "the end of the peer")
	if !errors.Is(p.Err(), ErrEnded) {
		t.Errorf("ended with %v, want ErrEnded", p.Err())
	}
	if err := p.Unmute(within(t)); err == nil {
		t.Error("Unmute after the end succeeds")
	}
	if err := p.Wait(within(t), func() bool { return false }); !errors.Is(err, ErrEnded) {
		t.Errorf("Wait after the end: %v", err)
	}
}

func TestFloodEndsPeer(t *testing.T) {
	p := &Peer{inbox: make(chan event, 1)}
	p.ctx, p.cancel = context.WithCancelCause(t.Context())
	p.deliver(event{})
	if p.Err() != nil {
		t.Fatal(p.Err())
	}
	p.deliver(event{})
	if !errors.Is(p.Err(), ErrSlow) {
		t.Errorf("a flooded peer has error %v, want ErrSlow", p.Err())
	}
}
