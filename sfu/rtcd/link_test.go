package rtcd

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"sallyport/sfu"
	"sallyport/sfu/wire"
)

const asA, asB = "clientA:" + keyA, "clientB:" + keyB

func TestStatement15TheFirstFrameIsHello(t *testing.T) {
	r, _ := startFake(t, Config{})
	p := r.dial(asA)
	id := p.hello.ConnID
	if p.hello.ClientID != "clientA" || len(id) != 26 || strings.Trim(id, "ybndrfg8ejkmcpqxot1uwisza345h769") != "" {
		t.Errorf("hello %+v", p.hello)
	}
}

// request asks for an upgrade with some headers changed; an empty value takes
// the header away.
func request(t *testing.T, r *rig, auth string, change map[string]string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", r.url+"/ws?any=query", nil)
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range map[string]string{
		"Connection": "keep-alive, Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
		"Sec-WebSocket-Key": base64.StdEncoding.EncodeToString(make([]byte, 16)),
	} {
		req.Header.Set(k, v)
	}
	for k, v := range change {
		if req.Header.Set(k, v); v == "" {
			req.Header.Del(k)
		}
	}
	authorize(req.Header, auth)
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var body bytes.Buffer
	if resp.StatusCode != http.StatusSwitchingProtocols {
		if _, err := body.ReadFrom(resp.Body); err != nil {
			t.Fatal(err)
		}
	}
	return answer{resp.StatusCode, resp.Header, body.String()}
}

func TestStatement16UpgradesThatAreRefused(t *testing.T) {
	r, _ := startFake(t, Config{})
	host := strings.TrimPrefix(r.url, "http://")
	for _, tt := range []struct {
		name, auth string
		change     map[string]string
		status     int
		body       string
	}{
		{"a good one", asA, nil, 101, ""},
		{"a page of this host", asA, map[string]string{"Origin": "http://" + host}, 101, ""},
		{"a wrong key", "clientA:" + keyB, nil, 401, "unauthorized\n"},
		{"no credential", "", nil, 401, "unauthorized\n"},
		{"an empty client, which rtcd took for its admin", ":" + keyA, nil, 401, "unauthorized\n"},
		{"an unknown token", "Bearer x", nil, 401, "unauthorized\n"},
		{"no Upgrade", asA, map[string]string{"Upgrade": ""}, 400, "Bad Request\n"},
		{"no Connection", asA, map[string]string{"Connection": ""}, 400, "Bad Request\n"},
		{"an old version", asA, map[string]string{"Sec-WebSocket-Version": "8"}, 400, "Bad Request\n"},
		{"no key", asA, map[string]string{"Sec-WebSocket-Key": ""}, 400, "Bad Request\n"},
		{"another site's page", asA, map[string]string{"Origin": "https://evil.example"}, 403, "Forbidden\n"},
		{"an opaque page", asA, map[string]string{"Origin": "null"}, 403, "Forbidden\n"},
		{"no upgrade and a wrong key", "clientA:" + keyB, map[string]string{"Upgrade": ""}, 401, "unauthorized\n"},
	} {
		if a := request(t, r, tt.auth, tt.change); a.status != tt.status || a.body != tt.body {
			t.Errorf("%s: %d %q, want %d %q", tt.name, a.status, a.body, tt.status, tt.body)
		}
	}
	// Refused upgrades must not count as closed connections.
	open := r.server.metrics.connections.WithLabelValues("clientA")
	until(t, "the connections to end", func() bool {
		if n := testutil.ToFloat64(open); n < 0 {
			t.Fatalf("%v connections", n)
		}
		r.server.conns.stopClient("clientA")
		return testutil.ToFloat64(open) == 0
	})
}

func TestStatement17TwoConnectionsOfOneClientCoexist(t *testing.T) {
	r, m := startFake(t, Config{})
	p1, p2 := r.dial(asA), r.dial(asA)
	if p1.hello.ConnID == p2.hello.ConnID {
		t.Error("two connections have the same ID")
	}
	p1.join("c1", "s1")
	p2.join("c1", "s2")
	m.session(t, "clientA", "s1")
	m.session(t, "clientA", "s2")
}

func TestStatement18ConnectionsLiveAsLongAsTheyAnswerPings(t *testing.T) {
	if pingEvery+pongWithin > 30*time.Second {
		t.Errorf("a silent connection lives for %v", pingEvery+pongWithin)
	}
	r, _ := startFake(t, Config{}, func(s *Server) { s.ping = pingTimes{20 * time.Millisecond, long} })
	pings := make(chan struct{}, 1000)
	p := r.dial(asA, websocket.DialOptions{OnPingReceived: func(context.Context, []byte) bool {
		pings <- struct{}{}
		return true
	}})
	ended := make(chan error, 1)
	go func() { _, err := p.readErr(); ended <- err }()
	for range 20 {
		select {
		case <-pings:
		case err := <-ended:
			t.Fatalf("connection that answers pings ends: %v", err)
		case <-time.After(long):
			t.Fatal("no ping")
		}
	}
	r.stop()
	<-ended

	r, _ = startFake(t, Config{}, func(s *Server) { s.ping = pingTimes{20 * time.Millisecond, 100 * time.Millisecond} })
	p = r.dial(asA, websocket.DialOptions{OnPingReceived: func(context.Context, []byte) bool { return false }})
	if _, err := p.readErr(); err == nil || websocket.CloseStatus(err) != -1 {
		t.Errorf("connection that withholds pongs: %v, want an end without a close frame", err)
	}
}

func TestStatement19And20And21WhateverArrivesTheConnectionStays(t *testing.T) {
	r, m := startFake(t, Config{})
	p := r.dial(asA)
	p.sendBytes(websocket.MessageText, []byte("hello"))
	p.sendBytes(websocket.MessageBinary, nil)
	p.sendBytes(websocket.MessageBinary, []byte{0xc1, 0xff, 0x00})
	for _, typ := range []string{wire.TypeHello, wire.TypeClose} {
		p.send(wire.Envelope{Type: typ, Session: "s1"})
	}
	text, err := os.ReadFile("../wire/testdata/envelopes.txt")
	if err != nil {
		t.Fatal(err)
	}
	frames := make(map[string][]byte)
	for line := range strings.Lines(string(text)) {
		if name, digits, ok := strings.Cut(strings.TrimSpace(line), " "); ok && name != "#" {
			if frames[name], err = hex.DecodeString(digits); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, name := range []string{"T7", "T8", "T9", "T10", "T11", "W5", "W11"} { // before the session exists
		p.sendBytes(websocket.MessageBinary, frames[name])
	}
	p.sendBytes(websocket.MessageBinary, frames["W2"])
	p.sendBytes(websocket.MessageBinary, frames["W3c"])
	s2 := m.session(t, "clientA", "s"+strings.Repeat("a", 24)+"3")
	s1 := m.session(t, "clientA", "s1")
	id := func(first, last string) string { return first + strings.Repeat("a", 24) + last }
	want := sfu.Member{Group: "clientA", Call: id("c", "1"), User: id("u", "2"), Session: id("s", "3"), Channel: id("h", "4"), AV1: true, AV1Set: true, DCSet: true}
	if diff := cmp.Diff(want, s2.member); diff != "" {
		t.Errorf("W2 (-want +got):\n%s", diff)
	}
	want = sfu.Member{Group: "clientA", Call: "c1", User: "u1", Session: "s1", Channel: "h1"}
	if diff := cmp.Diff(want, s1.member); diff != "" {
		t.Errorf("W3c (-want +got):\n%s", diff)
	}
	for _, name := range []string{"T1", "T2", "T3", "T5", "T6", "T12"} {
		p.sendBytes(websocket.MessageBinary, frames[name])
		s1.hears(t, "mute")
	}
	unknown := r.server.metrics.messages.WithLabelValues("clientA", "unknown", "in")
	if got := testutil.ToFloat64(unknown); got != 1 {
		t.Errorf("%v messages of unknown type, want the one T10", got)
	}
}

func TestStatement22AFrameOfMoreThanAMebibyteEndsTheConnection(t *testing.T) {
	r, m := startFake(t, Config{})
	p := r.dial(asA)
	p.join("c1", "s1")
	s := m.session(t, "clientA", "s1")
	e := wire.Envelope{Type: wire.TypeRTC, Message: wire.Message{Session: "s1", Kind: wire.KindMute}}
	frame, err := e.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	p.sendBytes(websocket.MessageBinary, append(frame, make([]byte, maxFrame-len(frame))...)) // the largest allowed
	s.hears(t, "mute")
	written := make(chan struct{})
	go func() {
		defer close(written)
		_ = p.ws.Write(context.Background(), websocket.MessageBinary, make([]byte, maxFrame+1))
	}()
	if _, err := p.readErr(); websocket.CloseStatus(err) != websocket.StatusMessageTooBig {
		t.Errorf("connection ends with %v, want close 1009", err)
	}
	<-written
}

func TestStatement23AJoinWithoutACallMakesNoSession(t *testing.T) {
	r, _ := startReal(t)
	p := r.dial(asA)
	p.join("", "s1")
	if e := p.read(); e.Type != wire.TypeClose || e.Session != "s1" {
		t.Errorf("the plugin is told %+v, want that the session is closed", e)
	}
	if a := r.do("GET", "/calls/c1/sessions", asA, ""); a.status != 404 {
		t.Errorf("session API: %d", a.status)
	}
	p.join("c1", "s1")
	until(t, "a join on the same connection", func() bool { return r.do("GET", "/calls/c1/sessions/s1", asA, "").status == 200 })
}

func TestStatement24ASecondJoinLeavesTheSessionAlone(t *testing.T) {
	r, media := startReal(t)
	p := r.dial(asA)
	p.join("c1", "s1")
	p.join("c1", "s1")
	p.join("", "s1")
	p.join("c1", "s2")
	until(t, "both sessions", func() bool { return media.Count() == 2 })
	p.leave("s2")
	if e := p.read(); e.Type != wire.TypeClose || e.Session != "s2" {
		t.Errorf("the plugin is told %+v, want only the close of s2", e)
	}
	if media.Session("clientA", "s1") == nil {
		t.Error("the session is gone")
	}
}

func TestStatement25And26LeaveClosesExactlyOnce(t *testing.T) {
	r, media := startReal(t)
	p := r.dial(asA)
	p.leave("unknown")
	p.join("c1", "s1")
	p.join("c1", "s2")
	p.leave("s1")
	p.leave("s1")
	if e := p.read(); e.Type != wire.TypeClose || e.Session != "s1" {
		t.Errorf("told %+v, want the close of s1", e)
	}
	p.leave("s1")
	p.leave("s2")
	if e := p.read(); e.Type != wire.TypeClose || e.Session != "s2" {
		t.Errorf("told %+v, want the close of s2", e)
	}
	if n := media.Count(); n != 0 {
		t.Errorf("%d sessions are left", n)
	}
}

func TestStatement28AnUnusableOfferClosesTheSession(t *testing.T) {
	r, _ := startReal(t)
	p := r.dial(asA)
	for _, data := range []string{`{"type":"offer","sdp":"nonsense"}`, `{"type":"offer","sdp":""}`, `nonsense`, `{}`, ``} {
		begin := time.Now()
		p.join("c1", "s1")
		p.rtc("s1", wire.KindSDP, data)
		if e := p.read(); e.Type != wire.TypeClose || e.Session != "s1" {
			t.Errorf("offer %q: told %+v, want a close", data, e)
		}
		if d := time.Since(begin); d > 5*time.Second {
			t.Errorf("offer %q: closed after %v", data, d)
		}
	}
}

func TestStatement30OneClientCannotTouchAnothersSession(t *testing.T) {
	r, m := startFake(t, Config{})
	a, b := r.dial(asA), r.dial(asB)
	a.join("c1", "s1")
	s := m.session(t, "clientA", "s1")
	b.leave("s1")
	b.rtc("s1", wire.KindMute, "")
	b.send(wire.Envelope{Type: wire.TypeReconnect, Session: "s1"})
	b.join("c1", "s1") // the same IDs in its own group
	other := m.session(t, "clientB", "s1")
	b.leave("s1")
	other.hears(t, "leave")
	if e := b.read(); e.Type != wire.TypeClose {
		t.Errorf("B gets %+v, want the close of its own session", e)
	}
	a.rtc("s1", wire.KindUnmute, "")
	s.hears(t, "unmute") // and nothing before
}

func TestEveryKindOfMessageReachesItsSession(t *testing.T) {
	r, m := startFake(t, Config{})
	p, other := r.dial(asA), r.dial(asA)
	p.join("c1", "s1")
	s := m.session(t, "clientA", "s1")
	for _, tt := range []struct {
		kind wire.Kind
		data string
		want string // "" = ignored
	}{
		{wire.KindSDP, `{"type":"offer","sdp":"v=0"}`, "describe offer v=0"},
		{wire.KindSDP, `{"type":"answer","sdp":"v=1"}`, "describe answer v=1"},
		{wire.KindSDP, `garbage`, "describe offer "},
		{wire.KindICE, `{"candidate":"cand","sdpMid":"0","sdpMLineIndex":0}`, "candidate cand"},
		{wire.KindICE, `garbage`, ""},
		{wire.KindMute, "", "mute"},
		{wire.KindUnmute, "", "unmute"},
		{wire.KindScreenOn, `{"screenStreamID":"st1"}`, "screen on st1"},
		{wire.KindScreenOn, `{}`, ""},
		{wire.KindScreenOff, "", "screen off"},
		{wire.KindVoiceOn, "", ""},
		{wire.KindVoiceOff, "", ""},
		{wire.KindVideoOn, `{"videoStreamID":"st2"}`, "video on st2"},
		{wire.KindVideoOn, `{"screenStreamID":"st2"}`, ""},
		{wire.KindVideoOff, "", "video off"},
	} {
		other.rtc("s1", tt.kind, tt.data) // any connection of the client may speak
		if tt.want != "" {
			s.hears(t, tt.want)
		}
	}
}

func TestAJoinThatFailsIsClosedAtOnce(t *testing.T) {
	r, m := startFake(t, Config{})
	m.refuse = sfu.ErrDraining
	p := r.dial(asA)
	p.join("c1", "s1")
	if e := p.read(); e.Type != wire.TypeClose || e.Session != "s1" {
		t.Errorf("told %+v, want the close of s1", e)
	}
	p.join(strings.Repeat("c", maxID+1), "s2")
	p.join("c1", strings.Repeat("s", maxID+1)) // no ID worth an answer
	if e := p.read(); e.Type != wire.TypeClose || e.Session != "s2" {
		t.Errorf("told %+v, want the close of s2", e)
	}
	m.mu.Lock()
	m.refuse = nil
	m.mu.Unlock()
	p.join("c1", "s3")
	m.session(t, "clientA", "s3").Signal().Voice(true)
	if e := p.read(); e.Type != wire.TypeVAD {
		t.Errorf("told %+v, want only VAD", e)
	}
}
