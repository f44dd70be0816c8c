package demo

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"sallyport/sfu/wire"
)

func TestFirstMessageIsRefused(t *testing.T) {
	r := newRig(t)
	<-r.links
	long := strings.Repeat("x", maxText+1)
	tests := []struct{ name, say, code string }{
		{"not JSON", `hello`, "bad_message"},
		{"array", `[]`, "bad_message"},
		{"no type", `{}`, "bad_message"},
		{"wrong type of field", `{"type":"join","room":7}`, "bad_message"},
		{"deep", strings.Repeat("[", 20000), "bad_message"},
		{"not a join", `{"type":"mute"}`, "bad_message"},
		{"no name", `{"type":"join","room":"r"}`, "bad_name"},
		{"blank name", `{"type":"join","room":"r","name":"  "}`, "bad_name"},
		{"long name", `{"type":"join","room":"r","name":"` + long + `"}`, "bad_name"},
		{"control characters", `{"type":"join","room":"r","name":"a\u0000b"}`, "bad_name"},
		{"right-to-left override", `{"type":"join","room":"r","name":"a\u202eb"}`, "bad_name"},
		{"not UTF-8", "{\"type\":\"join\",\"room\":\"r\",\"name\":\"\\ud800\"}", "bad_name"},
		{"no room", `{"type":"join","name":"n"}`, "bad_room"},
		{"long room", `{"type":"join","name":"n","room":"` + long + `"}`, "bad_room"},
		{"resume of nobody", `{"type":"resume","session":"s","resume":""}`, "gone"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := r.open(t)
			p.say(tt.say)
			if e := p.next("error"); e.Code != tt.code || !e.Fatal || e.Text == "" {
				t.Errorf("answered %+v, want code %s", e, tt.code)
			}
			if code := p.closed(); code != websocket.StatusPolicyViolation {
				t.Errorf("closed with %d", code)
			}
		})
	}
}

func TestSeatedBrowserMayErr(t *testing.T) {
	r := newRig(t)
	l := <-r.links
	p, _ := r.join(t, "r", "A")
	bad := []struct{ say, code string }{
		{`{"type":"sdp"}`, "bad_sdp"},
		{`{"type":"sdp","data":{"type":"pranswer","sdp":""}}`, "bad_sdp"},
		{`{"type":"sdp","data":"offer"}`, "bad_sdp"},
		{`{"type":"ice","data":[]}`, "bad_ice"},
		{`{"type":"ice","data":{"candidate":"` + strings.Repeat("x", maxCandidate) + `"}}`, "bad_ice"},
		{`{"type":"screen_on"}`, "bad_stream"},
		{`{"type":"video_on","stream":"` + strings.Repeat("x", maxStream+1) + `"}`, "bad_stream"},
		{`{"type":"join","room":"r","name":"B"}`, "bad_message"},
		{`nonsense`, "bad_message"},
	}
	for _, b := range bad {
		p.say(b.say)
		if e := p.next("error"); e.Code != b.code || e.Fatal {
			t.Errorf("%.60s was answered %+v, want %s", b.say, e, b.code)
		}
	}
	l.next(t, wire.TypeJoin)
	p.say(`{"type":"unmute"}`) // still served, and nothing of the above got through
	if m := (<-l.sent).Message; m.Kind != wire.KindUnmute {
		t.Errorf("the SFU was sent kind %d", m.Kind)
	}
}

func TestTooMuchIsCutOff(t *testing.T) {
	r := newRig(t)
	l := <-r.links
	t.Run("size", func(t *testing.T) {
		p, _ := r.join(t, "r", "A")
		p.say(`{"type":"sdp","data":{"type":"offer","sdp":"` + strings.Repeat("x", maxMessage) + `"}}`)
		if code := p.closed(); code != websocket.StatusMessageTooBig {
			t.Errorf("closed with %d", code)
		}
	})
	t.Run("rate", func(t *testing.T) {
		p, me := r.join(t, "r2", "A")
		for range messageBurst + 50 { // far less than five seconds' worth
			if p.ws.Write(t.Context(), websocket.MessageText, []byte(`{"type":"mute"}`)) != nil {
				break
			}
		}
		e := p.until("error", func(e event) bool { return e.Fatal })
		if e.Code != "too_many" {
			t.Errorf("answered %+v", e)
		}
		p.closed()
		for l.next(t, wire.TypeLeave).Session != me.Session {
		}
	})
}

func TestRoomAndHouseFill(t *testing.T) {
	r := newRig(t)
	<-r.links
	var first *browserPage
	for i := range maxRoom {
		p, _ := r.join(t, "full", fmt.Sprint(i))
		if first == nil {
			first = p
		}
	}
	refused := func(room, code string) {
		t.Helper()
		p := r.open(t)
		p.say(fmt.Sprintf(`{"type":"join","room":%q,"name":"late"}`, room))
		if e := p.next("error"); e.Code != code {
			t.Errorf("a join was answered %+v, want %s", e, code)
		}
	}
	refused("full", "room_full")
	first.say(`{"type":"leave"}`)
	first.closed()
	r.join(t, "full", "late") // the seat is free again
	for i := range maxMembers - maxRoom {
		r.join(t, fmt.Sprintf("room %d", i/maxRoom), "x")
	}
	refused("another", "full")
}

func TestForeignOriginIsRefused(t *testing.T) {
	r := newRig(t)
	<-r.links
	_, resp, err := websocket.Dial(t.Context(), r.url+"/demo/ws", &websocket.DialOptions{HTTPHeader: http.Header{"Origin": {"https://elsewhere.example"}}})
	if err == nil || resp.StatusCode != http.StatusForbidden {
		t.Errorf("a foreign origin got %v, %v", resp, err)
	}
}

func TestSeatSurvivesInterruption(t *testing.T) {
	r := newRig(t)
	l := <-r.links
	a, me := r.join(t, "r", "A")
	b, _ := r.join(t, "r", "B")
	a.ws.CloseNow() // no goodbye

	again := r.open(t)
	again.say(fmt.Sprintf(`{"type":"resume","session":%q,"resume":%q}`, me.Session, me.Resume))
	// What was queued for the lost socket may come first; the greeting comes with both members.
	back := again.until("joined", func(e event) bool { return len(e.Participants) == 2 })
	if back.Session != me.Session {
		t.Errorf("came back as %s", back.Session)
	}
	if e := l.next(t, wire.TypeReconnect); e.Session != me.Session {
		t.Errorf("reconnect names %q", e.Session)
	}
	b.say(`{"type":"unmute"}`)
	again.until("participant", func(e event) bool { return !e.Participant.Muted })

	thief := r.open(t)
	thief.say(fmt.Sprintf(`{"type":"resume","session":%q,"resume":"guess"}`, me.Session))
	if e := thief.next("error"); e.Code != "gone" {
		t.Errorf("a wrong token was answered %+v", e)
	}
}

func TestVanishedBrowserLosesSeat(t *testing.T) {
	r := newRig(t)
	l := <-r.links
	a, me := r.join(t, "r", "A")
	began := time.Now()
	a.ws.CloseNow()
	deadline := time.After(grace + patience)
	for {
		select {
		case e := <-l.sent:
			if e.Type != wire.TypeLeave {
				continue
			}
			if e.Session != me.Session || time.Since(began) < grace {
				t.Errorf("leave of %q after %v", e.Session, time.Since(began))
			}
			return
		case <-deadline:
			t.Fatal("the SFU was never told to end the session")
		}
	}
}

func TestLinkComesBack(t *testing.T) {
	r := newRig(t)
	first := <-r.links
	p, me := r.join(t, "r", "A")
	first.Close() // as if the media server had been restarted
	p.until("link", func(e event) bool { return !*e.Up })
	second := <-r.links
	p.until("link", func(e event) bool { return *e.Up })
	if e := second.next(t, wire.TypeReconnect); e.Session != me.Session {
		t.Errorf("the new link was told of %q", e.Session)
	}
	p.say(`{"type":"unmute"}`)
	second.next(t, wire.TypeRTC)
}

// TestSlowBrowserLosesSeat: nobody's memory grows because a browser does not read.
func TestSlowBrowserLosesSeat(t *testing.T) {
	h := newHub(slog.New(slog.DiscardHandler))
	var slow, healthy bool
	a, err := h.join(request{Room: "r", Name: "A"}, &socket{cancel: func() { slow = true }})
	if err != nil {
		t.Fatal(err)
	}
	b, err := h.join(request{Room: "r", Name: "B"}, &socket{cancel: func() { healthy = true }})
	if err != nil {
		t.Fatal(err)
	}
	token := a.resume
	for i := range maxOutbox + 1 {
		kind := wire.KindMute
		if i%2 == 0 {
			kind = wire.KindUnmute
		}
		if err := h.update(b, kind); err != nil {
			t.Fatal(err)
		}
		for len(b.outbox) > 0 {
			<-b.outbox
		}
	}
	if !slow || healthy || len(a.outbox) != maxOutbox {
		t.Errorf("slow socket cancelled: %t, healthy one: %t, %d events kept", slow, healthy, len(a.outbox))
	}
	if _, err := h.resume(request{Session: a.session, Resume: token}, &socket{cancel: func() {}}); err == nil {
		t.Error("a browser that missed events got its seat back")
	}
}

func TestJoinWithoutMediaServer(t *testing.T) {
	r := newRig(t)
	<-r.links
	r.link.set(nil)
	p := r.open(t)
	p.say(`{"type":"join","room":"r","name":"A"}`)
	if e := p.until("error", func(event) bool { return true }); e.Code != "unavailable" || !e.Fatal {
		t.Errorf("answered %+v", e)
	}
}

func FuzzRequest(f *testing.F) {
	f.Add([]byte(`{"type":"sdp","data":{"type":"offer","sdp":"v=0"}}`))
	f.Add([]byte(`{"type":"ice","data":{"candidate":""}}`))
	f.Add([]byte(`{"type":"screen_on","stream":"x"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseRequest(b)
		if err != nil {
			return
		}
		m, ok, err := r.rtc("session")
		if ok && err == nil && len(m.Data) > 0 && !json.Valid(m.Data) {
			t.Errorf("%q would be sent to the SFU", m.Data)
		}
	})
}

// TestPageModules runs the tests of the page's own code.
func TestPageModules(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("SKIPPED: node is not installed, the page's modules are NOT tested (apt-get install nodejs)")
	}
	out, err := exec.CommandContext(t.Context(), node, "--test", "testdata/page.test.mjs").CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
