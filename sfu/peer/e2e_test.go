package peer_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sallyport/sfu"
	"sallyport/sfu/peer"
	"sallyport/sfu/rtcd"
	"sallyport/sfu/wire"
)

const clientKey = "0123456789abcdef0123456789abcdef"

// A house is a whole SFU with its rtcd API on loopback, and a plugin's link.
type house struct {
	t     *testing.T
	media *sfu.Server
	mux   *peer.Mux
	call  string
}

func newHouse(t *testing.T, options ...sfu.Options) *house {
	t.Helper()
	o := sfu.Options{}
	if len(options) > 0 {
		o = options[0]
	}
	o.Logger = slog.New(slog.DiscardHandler)
	checkGoroutines(t)
	ctx, cancel := context.WithCancel(context.Background())
	var parts sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		parts.Wait()
	})
	sockets, err := sfu.Listen(sfu.Config{Mode: "rtcd", UDP: "127.0.0.1:0", TCP: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	media, err := sfu.New(sockets, o)
	if err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	api, err := rtcd.New(rtcd.Config{}, media, rtcd.Options{
		Metrics: registry, Gatherer: registry, Keys: map[string][]byte{"client": []byte(clientKey)},
	})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []func(context.Context) error{
		func(ctx context.Context) error { return media.Run(ctx) },
		func(ctx context.Context) error { return api.Run(ctx, ln) },
	} {
		parts.Go(func() {
			if err := part(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	mux, err := peer.DialMux(t.Context(), peer.LinkConfig{URL: "http://" + ln.Addr().String(), ClientID: "client", AuthKey: clientKey, NoRegister: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = mux.Close() })
	return &house{t: t, media: media, mux: mux, call: peer.NewID()}
}

func checkGoroutines(t *testing.T) {
	http.DefaultClient.CloseIdleConnections()
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		deadline := time.Now().Add(30 * time.Second)
		for runtime.NumGoroutine() > before && time.Now().Before(deadline) {
			http.DefaultClient.CloseIdleConnections()
			time.Sleep(10 * time.Millisecond) // pion ends some goroutines after Close
		}
		if n := runtime.NumGoroutine(); n > before {
			buf := make([]byte, 1<<20)
			t.Errorf("%d goroutines before, %d after:\n%s", before, n, buf[:runtime.Stack(buf, true)])
		}
	})
}

func (h *house) join(c peer.Config) *peer.Peer {
	h.t.Helper()
	c.Call = h.call
	p, err := peer.Join(h.t.Context(), h.mux, c)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = p.Close() })
	return p
}

// soon is a deadline that only a failure meets: what takes longest is the SFU
// noticing a participant's death.
func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// hears fails unless p gets n further packets of a track without loss. Over UDP a
// busy machine may lose some now and then, not always.
func (h *house) hears(p *peer.Peer, kind string, from *peer.Peer, n uint64) *peer.Track {
	h.t.Helper()
	track, err := p.WaitTrack(soon(h.t), kind, from.Session())
	if err != nil {
		h.t.Fatal(err)
	}
	for tries, lost := 1, uint64(0); ; tries++ {
		if err := track.WaitPackets(soon(h.t), track.Stats().Packets+n); err != nil {
			h.t.Fatal(err)
		}
		s := track.Stats()
		if s.Duplicates+s.Foreign > 0 || s.Lost > lost && tries == 3 {
			h.t.Errorf("%s: lost %d, duplicates %d, foreign %d of %d", kind, s.Lost, s.Duplicates, s.Foreign, s.Packets)
		}
		if s.Lost <= lost || tries == 3 {
			break
		}
		lost = s.Lost
	}
	if want := (wire.Media{Type: kind, Sender: from.Session()}); track.Announced != want {
		h.t.Errorf("track %s was announced as %+v, want %+v", track.ID, track.Announced, want)
	}
	return track
}

// gone waits until a track is in p's media map no more and has ended.
func (h *house) gone(p *peer.Peer, kind string, from *peer.Peer) {
	h.t.Helper()
	err := p.Wait(soon(h.t), func() bool {
		for _, m := range p.Media() {
			if m.Type == kind && m.Sender == from.Session() {
				return false
			}
		}
		return p.Track(kind, from.Session()) == nil
	})
	if err != nil {
		h.t.Errorf("%s is still there: %v; map %v", kind, err, p.Media())
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestCall(t *testing.T) {
	for _, path := range []peer.Path{peer.UDP, peer.TCP} {
		for _, channel := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s,channel=%v", path, channel), func(t *testing.T) {
				newHouse(t).playCall(peer.Config{Path: path, DCSignaling: channel})
			})
		}
	}
}

// playCall is a whole call of three.
func (h *house) playCall(c peer.Config) {
	t := h.t
	a, b := h.join(c), h.join(c)
	if s, err := a.Selected(); err != nil || s.Path != c.Path {
		t.Errorf("selected %v, %v; want path %v", s, err, c.Path)
	}
	must(t, a.Unmute(soon(t)))
	must(t, b.Unmute(soon(t)))
	h.hears(a, "voice", b, 60)
	voice := h.hears(b, "voice", a, 60)
	must(t, a.Wait(soon(t), a.Voice))

	must(t, a.ShareScreen(soon(t), peer.Video{Sound: true}))
	h.hears(b, "screen", a, 50)
	h.hears(b, "screen-audio", a, 20)
	must(t, b.CameraOn(soon(t), peer.Video{Bitrate: 300_000}))
	h.hears(a, "video", b, 20)

	late := h.join(c)
	h.hears(late, "voice", a, 20)
	h.hears(late, "voice", b, 20)
	if s := h.hears(late, "screen", a, 20).Stats(); s.KeyFrames == 0 {
		t.Errorf("the late joiner got no key frame in %d packets", s.Packets)
	}
	h.hears(late, "video", b, 20)
	must(t, late.Unmute(soon(t)))
	h.hears(a, "voice", late, 20)

	must(t, a.StopScreen(soon(t)))
	h.gone(b, "screen", a)
	h.gone(late, "screen", a)
	h.gone(b, "screen-audio", a)

	a.SetLevels(peer.Silent)
	must(t, a.Mute())
	must(t, a.Wait(soon(t), func() bool { return !a.Voice() }))
	must(t, a.Unmute(soon(t)))
	must(t, voice.WaitPackets(soon(t), voice.Stats().Packets+20)) // on the same track

	for i, p := range []*peer.Peer{b, late, a} {
		must(t, p.Leave(soon(t)))
		if n := h.media.Count(); n != 2-i {
			t.Errorf("%d sessions after %d of 3 have left", n, i+1)
		}
	}
}

// The server's UDP and TCP ports differ here, so a port chooses one of them.
func TestPort(t *testing.T) {
	h := newHouse(t)
	tcp, err := h.join(peer.Config{Path: peer.TCP}).Selected()
	must(t, err)
	p := h.join(peer.Config{Port: tcp.Remote.Port()})
	if s, err := p.Selected(); err != nil || s.Remote != tcp.Remote {
		t.Errorf("selected %v, %v; want a pair to %v", s, err, tcp.Remote)
	}
	must(t, p.Unmute(soon(t))) // a later offer does not give it away either
	if s, err := p.Selected(); err != nil || s.Remote != tcp.Remote {
		t.Errorf("selected %v, %v; want a pair to %v", s, err, tcp.Remote)
	}
}

// Without a relay a join over TURN fails at once, not when time is up.
func TestNoRelay(t *testing.T) {
	h := newHouse(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	address := ln.Addr().String()
	must(t, ln.Close())
	began := time.Now()
	_, err = peer.Join(t.Context(), h.mux, peer.Config{Call: h.call, Path: peer.TURNTCP, ICEServers: []peer.ICEServer{
		{URLs: []string{"turn:" + address + "?transport=tcp"}, Username: "u", Credential: "c"}}})
	if took := time.Since(began); !errors.Is(err, peer.ErrNoRelay) || took > 10*time.Second {
		t.Errorf("Join without a relay: %v after %v, want ErrNoRelay at once", err, took)
	}
}

// A participant that just vanishes is gone for the others as well, at the latest
// when ICE has given it up after 30 s.
func TestVanish(t *testing.T) {
	h := newHouse(t)
	a, b := h.join(peer.Config{}), h.join(peer.Config{})
	must(t, a.CameraOn(soon(t), peer.Video{}))
	h.hears(b, "video", a, 10)
	must(t, a.Close())
	h.gone(b, "video", a)
	must(t, b.Leave(soon(t)))
	if n := h.media.Count(); n != 0 {
		t.Errorf("%d sessions left", n)
	}
}

// Everyone changes something at once; in the end all have all.
func TestCrowd(t *testing.T) {
	h := newHouse(t)
	const n = 6
	peers := make([]*peer.Peer, n)
	var all sync.WaitGroup
	for i := range peers {
		all.Go(func() {
			c := peer.Config{Call: h.call, DCSignaling: i%2 == 0}
			p, err := peer.Join(t.Context(), h.mux, c)
			if err != nil {
				t.Error(err)
				return
			}
			peers[i] = p
			if err := p.Unmute(soon(t)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for _, p := range peers {
		if p != nil {
			t.Cleanup(func() { _ = p.Close() })
		}
	}
	if t.Failed() {
		t.FailNow()
	}
	for _, p := range peers {
		for _, from := range peers {
			if p != from {
				h.hears(p, "voice", from, 10)
			}
		}
	}
}
