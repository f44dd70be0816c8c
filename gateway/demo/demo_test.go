package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"sallyport/sfu/wire"
)

const patience = 30 * time.Second // for things that take milliseconds

// A fakeLink stands for the rtcd API: it records what is sent and lets the
// test speak as the SFU.
type fakeLink struct {
	sent chan wire.Envelope
	done chan struct{}
	once sync.Once
}

func newFakeLink() *fakeLink {
	return &fakeLink{sent: make(chan wire.Envelope, 4096), done: make(chan struct{})}
}

func (f *fakeLink) Send(e wire.Envelope) error { f.sent <- e; return nil }
func (f *fakeLink) Close() error               { f.once.Do(func() { close(f.done) }); return nil }
func (f *fakeLink) Done() <-chan struct{}      { return f.done }

// next returns the next envelope of that type and skips others.
func (f *fakeLink) next(t *testing.T, typ string) wire.Envelope {
	t.Helper()
	for {
		select {
		case e := <-f.sent:
			if e.Type == typ {
				return e
			}
		case <-time.After(patience):
			t.Fatalf("no %s was sent to the SFU", typ)
		}
	}
}

// A rig is a running Server with a fake SFU behind it.
type rig struct {
	*Server
	url   string
	links chan *fakeLink // each link dialled
}

func newRig(t *testing.T) *rig {
	t.Helper()
	s, err := New(Config{
		APIURL: "http://127.0.0.1:1", ClientID: "demo", AuthKey: strings.Repeat("k", 32),
		ICEServers: func(user string) []ICEServer {
			return []ICEServer{{URLs: []string{"turn:127.0.0.1:443"}, Username: "1:" + user, Credential: "c"}}
		},
		Media: Ports{UDP: 8443, TCP: 8443},
	})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{Server: s, links: make(chan *fakeLink, 16)}
	s.link.dial = func(context.Context) (link, error) {
		l := newFakeLink()
		r.links <- l
		return l, nil
	}
	up := make(chan struct{})
	var once sync.Once
	changed := s.link.changed
	s.link.changed = func(on bool) { changed(on); once.Do(func() { close(up) }) }
	server := httptest.NewServer(s.Handler())
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			t.Error("Run did not return")
		}
		server.Close()
		if n := len(s.hub.members) + len(s.hub.rooms) + s.sockets; n != 0 {
			t.Errorf("%d members, rooms and sockets are left after Run", n)
		}
	})
	<-up
	r.url = server.URL
	return r
}

// A browserPage is a browser's WebSocket.
type browserPage struct {
	t  *testing.T
	ws *websocket.Conn
}

func (r *rig) open(t *testing.T) *browserPage {
	t.Helper()
	ws, _, err := websocket.Dial(t.Context(), r.url+"/demo/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ws.CloseNow() })
	return &browserPage{t, ws}
}

func (r *rig) join(t *testing.T, room, name string) (*browserPage, event) {
	t.Helper()
	p := r.open(t)
	p.say(fmt.Sprintf(`{"type":"join","room":%q,"name":%q,"dcSignaling":true,"av1Support":true}`, room, name))
	return p, p.next("joined")
}

func (p *browserPage) say(text string) {
	p.t.Helper()
	if err := p.ws.Write(p.t.Context(), websocket.MessageText, []byte(text)); err != nil {
		p.t.Fatal(err)
	}
}

// next returns the next event of that type and skips others.
func (p *browserPage) next(typ string) event {
	p.t.Helper()
	return p.until(typ, func(event) bool { return true })
}

func (p *browserPage) until(typ string, good func(event) bool) event {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	for {
		_, b, err := p.ws.Read(ctx)
		if err != nil {
			p.t.Fatalf("waiting for %s: %v", typ, err)
		}
		var e event
		if err := json.Unmarshal(b, &e); err != nil {
			p.t.Fatal(err)
		}
		if e.Type == typ && good(e) {
			return e
		}
	}
}

// closed waits for the end of the socket and returns the close code.
func (p *browserPage) closed() websocket.StatusCode {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	for {
		if _, _, err := p.ws.Read(ctx); err != nil {
			if ctx.Err() != nil {
				p.t.Fatal("the socket stays open")
			}
			return websocket.CloseStatus(err)
		}
	}
}

func TestJoinSpeaksAsThePluginDoes(t *testing.T) {
	r := newRig(t)
	l := <-r.links
	_, a := r.join(t, "Big Room", "A")
	_, b := r.join(t, "big room", "B")

	ja, jb := l.next(t, wire.TypeJoin).Join, l.next(t, wire.TypeJoin).Join
	for _, id := range []string{ja.Call, ja.User, ja.Session, ja.Channel} {
		if len(id) != 26 || strings.Trim(id, "abcdefghijklmnopqrstuvwxyz0123456789") != "" {
			t.Errorf("ID %q is not 26 characters of [a-z0-9]", id)
		}
	}
	if ja.Session != a.Session || jb.Session != b.Session || !ja.DCSignaling || !ja.DCSet || !ja.AV1 || !ja.AV1Set {
		t.Errorf("join of the SFU does not match the browser's: %+v", ja)
	}
	if ja.Call != jb.Call {
		t.Error("two members of one room are in different calls")
	}
	if len(b.Participants) != 2 {
		t.Errorf("the second member sees %d participants", len(b.Participants))
	}
	_, _ = r.join(t, "other", "C")
	if c := l.next(t, wire.TypeJoin).Join; c.Call == ja.Call {
		t.Error("two rooms share a call")
	}
}

func TestSignalsPassVerbatim(t *testing.T) {
	r := newRig(t)
	l := <-r.links
	p, me := r.join(t, "r", "A")
	up := []struct {
		say  string
		kind wire.Kind
		data string
	}{
		{`{"type":"sdp","data":{"type":"offer", "sdp":"v=0\r\n"}}`, wire.KindSDP, `{"type":"offer", "sdp":"v=0\r\n"}`},
		{`{"type":"ice","data":{"candidate":"candidate:1 1 udp 1 192.0.2.1 5000 typ host","sdpMid":"0"}}`, wire.KindICE, `{"candidate":"candidate:1 1 udp 1 192.0.2.1 5000 typ host","sdpMid":"0"}`},
		{`{"type":"unmute"}`, wire.KindUnmute, ""},
		{`{"type":"mute"}`, wire.KindMute, ""},
		{`{"type":"screen_on","stream":"st1"}`, wire.KindScreenOn, `{"screenStreamID":"st1"}`},
		{`{"type":"screen_off"}`, wire.KindScreenOff, ""},
		{`{"type":"video_on","stream":"st2"}`, wire.KindVideoOn, `{"videoStreamID":"st2"}`},
		{`{"type":"video_off"}`, wire.KindVideoOff, ""},
	}
	for _, u := range up {
		p.say(u.say)
		m := l.next(t, wire.TypeRTC).Message
		if m.Session != me.Session || m.Kind != u.kind || string(m.Data) != u.data {
			t.Errorf("%s became kind %d, data %q for %q", u.say, m.Kind, m.Data, m.Session)
		}
	}
	down := `{"candidate":{"candidate":"candidate:1 1 tcp 1 192.0.2.1 8443 typ host tcptype passive","sdpMid":"0"},"type":"candidate"}`
	r.hub.fromSFU(wire.Envelope{Type: wire.TypeRTC, Message: wire.Message{Session: me.Session, Kind: wire.KindICE, Data: []byte(down)}})
	if got := p.next("signal"); string(got.Data) != down {
		t.Errorf("signal reached the browser as %s", got.Data)
	}
}

func TestRoomHearsOfItsMembers(t *testing.T) {
	r := newRig(t)
	<-r.links
	a, me := r.join(t, "r", "A")
	b, _ := r.join(t, "r", "B")
	about := func(f func(participant) bool) func(event) bool {
		return func(e event) bool { return e.Participant.Session == me.Session && f(*e.Participant) }
	}
	voice := func(kind wire.Kind) {
		r.hub.fromSFU(wire.Envelope{Type: wire.TypeVAD, Message: wire.Message{Session: me.Session, Kind: kind}})
	}
	a.say(`{"type":"unmute"}`)
	b.until("participant", about(func(p participant) bool { return !p.Muted }))
	voice(wire.KindVoiceOn)
	b.until("participant", about(func(p participant) bool { return p.Voice }))
	voice(wire.KindVoiceOff)
	b.until("participant", about(func(p participant) bool { return !p.Voice }))
	voice(wire.KindVoiceOn)
	a.say(`{"type":"mute"}`)
	b.until("participant", about(func(p participant) bool { return p.Muted && !p.Voice }))
	a.say(`{"type":"video_on","stream":"s"}`)
	b.until("participant", about(func(p participant) bool { return p.Video }))
	a.say(`{"type":"leave"}`)
	b.until("left", func(e event) bool { return e.Session == me.Session })
	if code := a.closed(); code != websocket.StatusNormalClosure {
		t.Errorf("leave was answered with close code %d", code)
	}
}

func TestOneSharesTheScreen(t *testing.T) {
	r := newRig(t)
	l := <-r.links
	a, _ := r.join(t, "r", "A")
	b, second := r.join(t, "r", "B")
	a.say(`{"type":"screen_on","stream":"s1"}`)
	l.next(t, wire.TypeRTC)
	b.say(`{"type":"screen_on","stream":"s2"}`)
	if e := b.next("error"); e.Code != "screen_taken" || !strings.Contains(e.Text, "A is sharing") || e.Fatal {
		t.Errorf("a second sharer was answered %+v", e)
	}
	b.say(`{"type":"screen_off"}`) // not the sharer: must not end A's share
	b.say(`{"type":"screen_on","stream":"s2"}`)
	if e := b.next("error"); e.Code != "screen_taken" {
		t.Errorf("screen_off of somebody else freed the screen: %+v", e)
	}
	a.say(`{"type":"leave"}`) // the sharer's end frees it
	b.next("left")
	b.say(`{"type":"screen_on","stream":"s2"}`)
	b.until("participant", func(e event) bool { return e.Participant.Session == second.Session && e.Participant.Screen })
}

func TestSFUEndsSession(t *testing.T) {
	r := newRig(t)
	<-r.links
	a, me := r.join(t, "r", "A")
	b, _ := r.join(t, "r", "B")
	r.hub.fromSFU(wire.Envelope{Type: wire.TypeClose, Session: me.Session})
	a.next("ended")
	a.closed()
	b.until("left", func(e event) bool { return e.Session == me.Session })
}

func TestConfigAndPage(t *testing.T) {
	r := newRig(t)
	<-r.links
	get := func(path string) (*http.Response, string) {
		resp, err := http.Get(r.url + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var b strings.Builder
		if err := resp.Write(&b); err != nil {
			t.Fatal(err)
		}
		return resp, b.String()
	}
	one, body := get("/demo/config")
	_, other := get("/demo/config")
	if body == other {
		t.Error("two pages got the same TURN user")
	}
	if one.Header.Get("Cache-Control") != "no-store" || !strings.Contains(body, `"media":{"udp":8443,"tcp":8443}`) {
		t.Errorf("config is %s", body)
	}
	resp, body := get("/")
	if !strings.Contains(body, "main.mjs") || resp.Header.Get("Content-Security-Policy") != contentPolicy {
		t.Errorf("page is %.200s", body)
	}
	if strings.Contains(body, "http://www") || strings.Contains(body, "https://") || strings.Contains(body, " style=") {
		t.Error("the page refers to another host or has inline style")
	}
	if resp, _ := get("/main.mjs"); resp.Header.Get("Content-Type") != "text/javascript; charset=utf-8" {
		t.Errorf("a module is served as %q", resp.Header.Get("Content-Type"))
	}
	if resp, body := get("/api/v4/system/ping"); resp.StatusCode != http.StatusOK || !strings.Contains(body, `"status":"OK"`) {
		t.Errorf("the health check of the gateway is answered %s", body)
	}
	if resp, _ := get("/nothing"); resp.StatusCode != http.StatusNotFound {
		t.Errorf("an unknown path answers %d", resp.StatusCode)
	}
}
