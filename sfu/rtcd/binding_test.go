package rtcd

import (
	"context"
	"log/slog"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"golang.org/x/time/rate"

	"sallyport/sfu/wire"
)

func TestStatement29ReconnectMovesEverythingToItsConnection(t *testing.T) {
	r, m := startFake(t, Config{})
	p1, p2 := r.dial(asA), r.dial(asA)
	p1.join("c1", "s1")
	s := m.session(t, "clientA", "s1")
	p2.send(wire.Envelope{Type: wire.TypeReconnect, Session: "s1"})
	s.hears(t, "rebind")
	p2.send(wire.Envelope{Type: wire.TypeReconnect, Session: "unknown"})
	s.Signal().Offer(wire.Description{Type: "offer", SDP: "v=0\r\n"})
	s.Signal().Candidate(wire.Candidate{Candidate: "x"})
	s.Signal().Voice(true)
	p1.leave("s1")
	p1.join("c1", "s3")
	for _, want := range []string{wire.TypeRTC, wire.TypeRTC, wire.TypeVAD, wire.TypeClose} {
		if e := p2.read(); e.Type != want {
			t.Errorf("second connection gets %+v, want %s", e, want)
		}
	}
	m.session(t, "clientA", "s3").Signal().Voice(false)
	if e := p1.read(); e.Type != wire.TypeVAD || e.Message.Session != "s3" {
		t.Errorf("first connection gets %+v, want nothing of s1", e)
	}
}

func TestStatement31And32OutgoingMessagesNameTheirSession(t *testing.T) {
	r, m := startFake(t, Config{})
	p := r.dial(asA)
	p.join("c1", "s1")
	sig := m.session(t, "clientA", "s1").Signal()
	mid, line := "0", uint16(0)
	sig.Answer(wire.Description{Type: "answer", SDP: "v=0\r\n"})
	sig.Candidate(wire.Candidate{Candidate: "candidate:1 1 udp 1 192.0.2.9 8443 typ host", SDPMid: &mid, SDPMLineIndex: &line})
	sig.Voice(true)
	sig.Voice(false)
	message := func(k wire.Kind, data string) wire.Message {
		m := wire.Message{Group: "clientA", User: "u1", Session: "s1", Call: "c1", Kind: k}
		if data != "" {
			m.Data = []byte(data)
		}
		return m
	}
	for _, want := range []wire.Envelope{ // the golden messages W8, W10, W15, W16
		{Type: wire.TypeRTC, Message: message(wire.KindSDP, `{"type":"answer","sdp":"v=0\r\n"}`)},
		{Type: wire.TypeRTC, Message: message(wire.KindICE, `{"candidate":{"candidate":"candidate:1 1 udp 1 192.0.2.9 8443 typ host","sdpMid":"0","sdpMLineIndex":0,"usernameFragment":null},"type":"candidate"}`)},
		{Type: wire.TypeVAD, Message: message(wire.KindVoiceOn, "")},
		{Type: wire.TypeVAD, Message: message(wire.KindVoiceOff, "")},
	} {
		if diff := cmp.Diff(want, p.read()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

func TestMessagesFindTheNewestConnectionWhenTheirsIsGone(t *testing.T) {
	r, m := startFake(t, Config{})
	p1 := r.dial(asA)
	p1.join("c1", "s1")
	s := m.session(t, "clientA", "s1")
	r.lose(p1, 0)
	s.Signal().Voice(true)
	if got := testutil.ToFloat64(r.server.metrics.dropped); got != 1 {
		t.Errorf("%v messages dropped, want 1: there is no connection", got)
	}
	stranger := r.dial(asB)
	p2, p3 := r.dial(asA), r.dial(asA)
	s.Signal().Voice(false)
	s.Leave()
	for _, want := range []string{wire.TypeVAD, wire.TypeClose} {
		if e := p3.read(); e.Type != want {
			t.Errorf("newest connection gets %+v, want %s", e, want)
		}
	}
	for _, p := range []*plugin{p2, stranger} { // nothing but what comes now
		p.send(wire.Envelope{Type: wire.TypeJoin, Join: wire.Join{Session: "refused"}}) // without a call
		if e := p.read(); e.Session != "refused" {
			t.Errorf("another connection gets %+v", e)
		}
	}
}

// TestANodeThatComesBackGetsItsMessagesAgain: what is sent while its connection is
// lost finds no better one than another node's, but that one stays a stranger.
func TestANodeThatComesBackGetsItsMessagesAgain(t *testing.T) {
	r, m := startFake(t, Config{})
	node, other := r.dial(asA), r.dial(asA)
	node.join("c1", "s1")
	s := m.session(t, "clientA", "s1")
	r.lose(node, 1)
	s.Signal().Voice(true)
	if e := other.read(); e.Type != wire.TypeVAD {
		t.Errorf("other node gets %+v, want VAD", e)
	}
	node = r.dial(asA)
	s.Signal().Offer(wire.Description{Type: "offer", SDP: "v=0\r\n"})
	if e := node.read(); e.Type != wire.TypeRTC {
		t.Errorf("node that is back gets %+v, want the offer", e)
	}
	r.lose(other, 1)
	other = r.dial(asA) // now the newest
	node.rtc("s1", wire.KindMute, "")
	s.hears(t, "mute")
	s.Signal().Voice(false)
	if e := node.read(); e.Type != wire.TypeVAD {
		t.Errorf("node that spoke for the session gets %+v, want VAD", e)
	}
	r.lose(node, 1)
	s.Leave()
	if e := other.read(); e.Type != wire.TypeClose {
		t.Errorf("the only node gets %+v, want close", e)
	}
}

// TestHelloIsFirst: also when there is something to be sent through a connection
// before anything else has happened to it.
func TestHelloIsFirst(t *testing.T) {
	early := &onMessage{Handler: slog.DiscardHandler, message: "plugin connected"}
	r, m := startFake(t, Config{}, func(s *Server) { s.log = slog.New(early) })
	p := r.dial(asA)
	p.join("c1", "s1")
	s := m.session(t, "clientA", "s1")
	r.lose(p, 0)
	voice := func() { s.Signal().Voice(true) }
	early.do.Store(&voice)
	p = r.dial(asA) // fails if the first is anything else
	if e := p.read(); e.Type != wire.TypeVAD {
		t.Errorf("second message is %+v, want VAD", e)
	}
}

// An onMessage is a log that does something when a message is logged.
type onMessage struct {
	slog.Handler
	message string
	do      atomic.Pointer[func()]
}

func (o *onMessage) Enabled(context.Context, slog.Level) bool { return true }
func (o *onMessage) WithAttrs([]slog.Attr) slog.Handler       { return o }

func (o *onMessage) Handle(_ context.Context, r slog.Record) error {
	if do := o.do.Load(); do != nil && r.Message == o.message {
		(*do)()
	}
	return nil
}

func TestARejoinIsNotHitByTheCloseOfTheFormerSession(t *testing.T) {
	r, m := startFake(t, Config{})
	p := r.dial(asA)
	p.join("c1", "s1")
	former := m.session(t, "clientA", "s1")
	m.mu.Lock()
	delete(m.sessions, [2]string{"clientA", "s1"}) // it has ended, and frees what it holds
	m.mu.Unlock()
	p.join("c1", "s1")
	next := m.session(t, "clientA", "s1")
	former.Signal().Closed()
	next.Signal().Voice(true)
	if e := p.read(); e.Type != wire.TypeVAD {
		t.Errorf("told %+v, want VAD of the new session first", e)
	}
}

func TestAConnectionThatDoesNotReadIsClosedAndHoldsUpNobody(t *testing.T) {
	r, m := startFake(t, Config{})
	lazy := r.dialSilent(asA)
	lazy.join("c1", "lazy")
	s := m.session(t, "clientA", "lazy")
	quick := r.dial(asB)
	quick.join("c1", "quick")
	q := m.session(t, "clientB", "quick")

	open := r.server.metrics.connections.WithLabelValues("clientA")
	big := wire.Description{Type: "offer", SDP: strings.Repeat("v", 200<<10)}
	var longest time.Duration
	for range 1000 { // 200 MB, of which some are in TCP's buffers
		if testutil.ToFloat64(open) == 0 {
			break
		}
		begin := time.Now()
		s.Signal().Offer(big)
		q.Signal().Voice(true)
		if e := quick.read(); e.Type != wire.TypeVAD {
			t.Fatalf("quick connection gets %+v", e)
		}
		longest = max(longest, time.Since(begin))
	}
	begin := time.Now()
	until(t, "the connection to be closed", func() bool { return testutil.ToFloat64(open) == 0 })
	if longest = max(longest, time.Since(begin)); longest > 8*time.Second {
		t.Errorf("a wait of %v: somebody waited for the write deadline", longest)
	}
	if testutil.ToFloat64(r.server.metrics.dropped) == 0 {
		t.Error("what was queued is not counted as dropped")
	}
}

func TestConnectionsOfOneClientAreBounded(t *testing.T) {
	r, _ := startFake(t, Config{})
	for range maxConns {
		r.dial(asA)
	}
	p := r.dialSilent(asA)
	if e, err := p.readErr(); err == nil {
		t.Errorf("connection %d gets %+v", maxConns+1, e)
	}
	r.dial(asB)
}

// TestAClientThatFloodsIsReadSlowly: over all its connections together, and
// nobody else is.
func TestAClientThatFloodsIsReadSlowly(t *testing.T) {
	r, m := startFake(t, Config{}, func(s *Server) {
		s.conns.pace = func() *rate.Limiter { return rate.NewLimiter(5, 2) }
	})
	p1, p2, other := r.dial(asA), r.dial(asA), r.dial(asB)
	p1.join("c1", "s1")
	s := m.session(t, "clientA", "s1")
	begin := time.Now()
	for range 5 {
		p1.rtc("s1", wire.KindMute, "")
		p2.rtc("s1", wire.KindMute, "")
	}
	other.join("c1", "s2")
	m.session(t, "clientB", "s2")
	if n := len(s.told); n == 10 {
		t.Error("another client waited")
	}
	for range 10 {
		s.hears(t, "mute")
	}
	if d := time.Since(begin); d < 1500*time.Millisecond { // 10 messages, of which 2 at once: 1.6 s
		t.Errorf("11 messages were read in %v", d)
	}
}

func TestRunLeavesNothingBehind(t *testing.T) {
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	before := runtime.NumGoroutine()
	r, m := startFake(t, Config{SelfRegistration: true, Store: t.TempDir()})
	var plugins []*plugin
	for range 10 {
		plugins = append(plugins, r.dial(asA))
	}
	plugins[0].join("c1", "s1")
	sig := m.session(t, "clientA", "s1").Signal()
	r.do("GET", "/version", "", "")
	r.stop()
	for i, p := range slices.Backward(plugins) {
		if _, err := p.readErr(); err == nil || websocket.CloseStatus(err) != -1 {
			t.Errorf("connection %d: %v, want an end without a close frame", i, err)
		}
	}
	sig.Closed() // the SFU ends later; nobody must panic
	if got := testutil.ToFloat64(r.server.metrics.connections.WithLabelValues("clientA")); got != 0 {
		t.Errorf("%v connections are left", got)
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	until(t, "all goroutines to end", func() bool { return runtime.NumGoroutine() <= before })
}
