package conformance

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"
	"github.com/pion/webrtc/v3"
	"github.com/tinylib/msgp/msgp"

	"sallyport/sfu/wire"
)

// upgrade asks for a WebSocket by hand and hangs up after the answer.
func upgrade(url string, auth func(*http.Request), edit func(*http.Request)) (reply, error) {
	r, err := http.NewRequest(http.MethodGet, url+"/ws", nil)
	if err != nil {
		return reply{}, err
	}
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", "websocket")
	r.Header.Set("Sec-WebSocket-Version", "13")
	r.Header.Set("Sec-WebSocket-Key", base64.StdEncoding.EncodeToString([]byte("sixteen bytes...")))
	auth(r)
	if edit != nil {
		edit(r)
	}
	conn, err := net.DialTimeout("tcp", r.URL.Host, patience)
	if err != nil {
		return reply{}, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	if err := r.Write(conn); err != nil {
		return reply{}, err
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), r)
	if err != nil {
		return reply{}, err
	}
	return reply{status: response.StatusCode, header: response.Header}, nil
}

// unhex decodes one of the specification's vectors.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	must(t, err)
	return b
}

func TestConformance15HelloComesFirst(t *testing.T) {
	conform(t, 15, brief, func(t testing.TB) {
		// W1 decodes to what it says: the suite and the server speak of the same.
		w1, err := wire.Decode(unhex(t, "a568656c6c6f82a8636c69656e744944a7636c69656e7441a6636f6e6e4944ba79626e6472666738656a6b6d637071786f7431757769737a6133"))
		if err != nil || w1.ClientID != "clientA" || w1.ConnID != "ybndrfg8ejkmcpqxot1uwisza3" {
			t.Fatalf("W1 decodes to %+v, %v", w1, err)
		}
		r := &http.Request{Header: http.Header{}}
		shared.client.basic(r)
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		ws, _, err := websocket.Dial(ctx, shared.url+"/ws", &websocket.DialOptions{HTTPHeader: r.Header})
		must(t, err)
		defer func() { _ = ws.CloseNow() }()
		kind, b, err := ws.Read(ctx)
		must(t, err)
		e, err := wire.Decode(b)
		must(t, err)
		if kind != websocket.MessageBinary || e.Type != wire.TypeHello || e.ClientID != shared.client.id || e.ConnID == "" {
			t.Errorf("the first frame is %v %+v", kind, e)
		}
		for _, origin := range []string{"http://elsewhere.example", "null"} {
			r, err := upgrade(shared.url, shared.client.basic, func(r *http.Request) { r.Header.Set("Origin", origin) })
			must(t, err)
			if r.status == http.StatusSwitchingProtocols {
				t.Errorf("a page of %s is let in", origin)
			}
		}
	})
}

func TestConformance16WrongKeysAreNotUpgraded(t *testing.T) {
	conform(t, 16, brief, func(t testing.TB) {
		for _, auth := range []func(*http.Request){account{shared.client.id, newAccount().key}.basic, newAccount().basic, nobody, bearer("nonsense"), account{"", shared.client.key}.basic} {
			if opens(t, auth) {
				t.Error("a wrong credential is let in")
			}
		}
	})
}

func TestConformance17ConnectionsOfOneClientCoexist(t *testing.T) {
	conform(t, 17, brief, func(t testing.TB) {
		p, q := dial(t), dial(t)
		hello := func(f frame) bool { return f.Type == wire.TypeHello }
		if a, b := p.await("hello", hello), q.await("hello", hello); a.ConnID == b.ConnID {
			t.Errorf("both are called %s", a.ConnID)
		}
		p.alive()
		q.alive()
	})
}

func TestConformance18PongsKeepAConnectionAlive(t *testing.T) {
	conform(t, 18, patient, func(t testing.TB) {
		pings := make(chan time.Time, 64)
		idle, err := connect(t, shared.url, shared.client, func() bool { pings <- time.Now(); return true })
		must(t, err)
		begun := time.Now()
		mute, err := connect(t, shared.url, shared.client, func() bool { return false })
		must(t, err)
		select {
		case <-mute.done:
			if took := time.Since(begun); took < 10*time.Second {
				t.Errorf("without pongs the connection ended after %s already", took)
			}
		case <-time.After(30 * time.Second):
			t.Error("without pongs the connection lives for 30 s")
		}
		// 45 s stand for the five minutes of the statement: more than twice the
		// time after which silence ends a connection.
		select {
		case <-idle.done:
			t.Fatalf("the idle connection ended after %s: %v", time.Since(begun), idle.err)
		case <-time.After(time.Until(begun.Add(45 * time.Second))):
		}
		if n := len(pings); n < 3 {
			t.Errorf("%d pings in 45 s, want one each 10 s", n)
		}
		idle.alive()
	})
}

func TestConformance19NonsenseIsIgnored(t *testing.T) {
	conform(t, 19, brief, func(t testing.TB) {
		p := dial(t)
		p.sendFrame(websocket.MessageText, []byte("hello?"))
		for _, s := range []string{
			"",                         // nothing
			"00", "ff", "deadbeefcafe", // garbage
			"a3666f6fc0", // T10: unknown type
			"92a372746382aa73657373696f6e5f6964a27331a47479706503", // T7: array wrapper
			"a56c6561766580",                                     // T8: no session
			"a56c65617665",                                       // T11: truncated
			"a56a6f696e86", "a3727463dfffffffff", "dbffffffff61", // lengths that lie
		} {
			p.sendFrame(websocket.MessageBinary, unhex(t, s))
		}
		p.alive()
	})
}

func TestConformance20JoinVectors(t *testing.T) {
	conform(t, 20, brief, func(t testing.TB) {
		p := dialAs(t, shared.url, another(t))
		type props struct{ AV1Support, DCSignaling *bool }
		yes, no := true, false
		try := func(name string, b []byte, call, session string, want props) {
			p.sendFrame(websocket.MessageBinary, b)
			p.awaitMember(call, session)
			var got []struct{ Props props }
			if err := json.Unmarshal([]byte(p.members(call).body), &got); err != nil || len(got) != 1 {
				t.Fatalf("%s: %v", name, err)
			}
			if diff := cmp.Diff(want, got[0].Props); diff != "" {
				t.Errorf("%s (-want +got):\n%s", name, diff)
			}
			before := len(p.all(closed(session)))
			p.leave(session)
			until(t, "close after "+name, func() bool { return len(p.all(closed(session))) > before })
		}
		pad := func(first, last string) string { return first + strings.Repeat("a", 24) + last }
		try("W2", unhex(t, "a46a6f696e86a663616c6c4944ba6361616161616161616161616161616161616161616161616131a6757365724944ba7561616161616161616161616161616161616161616161616132a973657373696f6e4944ba7361616161616161616161616161616161616161616161616133a96368616e6e656c4944ba6861616161616161616161616161616161616161616161616134aa617631537570706f7274c3ab64635369676e616c696e67c2"), pad("c", "1"), pad("s", "3"), props{&yes, &no})
		try("W3", unhex(t, "a46a6f696e86a663616c6c4944a26331a6757365724944a27531a973657373696f6e4944a27331a96368616e6e656c4944a26831aa617631537570706f7274c2ab64635369676e616c696e67c3"), "c1", "s1", props{&no, &yes})
		try("W3b", unhex(t, "a46a6f696e84a663616c6c4944a26331a6757365724944a27531a973657373696f6e4944a27331a96368616e6e656c4944a26831"), "c1", "s1", props{})
		try("W3c", unhex(t, "a46a6f696e86a663616c6c4944a26331a6757365724944a27531a973657373696f6e4944a27331a96368616e6e656c4944a26831aa617631537570706f7274c0a66675747572650c"), "c1", "s1", props{})
		for _, order := range [][]string{
			{"dcSignaling", "channelID", "sessionID", "av1Support", "userID", "callID"},
			{"sessionID", "callID", "dcSignaling", "userID", "av1Support", "channelID"},
		} {
			b := msgp.AppendMapHeader(msgp.AppendString(nil, "join"), uint32(len(order)))
			for _, key := range order {
				b = msgp.AppendString(b, key)
				switch key {
				case "av1Support", "dcSignaling":
					b = msgp.AppendBool(b, true)
				default:
					b = msgp.AppendString(b, map[string]string{"callID": "c1", "userID": "u1", "sessionID": "s1", "channelID": "h1"}[key])
				}
			}
			try(strings.Join(order, " "), b, "c1", "s1", props{&yes, &yes})
		}
	})
}

func TestConformance21ToleranceVectors(t *testing.T) {
	conform(t, 21, brief, func(t testing.TB) {
		p := dialAs(t, shared.url, another(t))
		// T4 is a description that cannot be used. As the first one it ends the
		// session.
		j := newJoin(newID())
		j.Session = "s1"
		p.join(j)
		p.awaitMember(j.Call, "s1")
		p.sendFrame(websocket.MessageBinary, unhex(t, "a372746383aa73657373696f6e5f6964a27331a47479706502a464617461a27b7d"))
		p.await("close after T4", closed("s1"))

		g := enter(t, p, newID(), options{session: "s1"})
		g.publish(webrtc.MimeTypeOpus, "mic")
		// Each mute makes a voice-off, so its effect can be seen again and again.
		mutes := func() int { return len(p.all(voice("s1", wire.KindVoiceOff))) }
		until(t, "voice-off", func() bool { // VAD begins with the first packet
			p.rtc("s1", wire.KindMute, nil)
			time.Sleep(50 * time.Millisecond)
			return mutes() > 0
		})
		time.Sleep(100 * time.Millisecond)
		for _, v := range [][2]string{
			{"T1", "a372746382aa73657373696f6e5f6964a27331a474797065cc03"},
			{"T2", "a372746382aa73657373696f6e5f6964a27331a474797065d30000000000000003"},
			{"T3", "a372746383aa73657373696f6e5f6964a27331a47479706503a3666f6f01"},
			{"T5", "d90372746382aa73657373696f6e5f6964a27331a47479706503"},
			{"T6", "a372746382aa73657373696f6e5f6964a27331a47479706503ffff"},
			{"T12", "a3727463" + "96a0a0a27331a003c0"},
			{"W11", "a372746385a867726f75705f6964a0a7757365725f6964a0aa73657373696f6e5f6964a27331a763616c6c5f6964a0a47479706503"},
		} {
			before := mutes()
			p.sendFrame(websocket.MessageBinary, unhex(t, v[1]))
			until(t, "mute after "+v[0], func() bool { return mutes() > before })
		}
		p.sendFrame(websocket.MessageBinary, unhex(t, "a3727463c0")) // T9
		p.alive()
	})
}

func TestConformance22HugeFramesEndTheConnection(t *testing.T) {
	conform(t, 22, brief, func(t testing.TB) {
		p := dial(t)
		// What fits is taken: a message of just under 1 MiB.
		p.rtc(newID(), wire.KindSDP, make([]byte, 1<<20-4096))
		p.alive()
		// The server may close before everything is written.
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_ = p.ws.Write(ctx, websocket.MessageBinary, make([]byte, 1<<20+1))
		select {
		case <-p.done:
		case <-time.After(patience):
			t.Fatal("the connection lives on")
		}
		var ended websocket.CloseError
		if !errors.As(p.err, &ended) || ended.Code != websocket.StatusMessageTooBig {
			t.Errorf("the connection ended with %v, want close 1009", p.err)
		}
	})
}

func TestConformance23JoinWithoutACallIsRefused(t *testing.T) {
	conform(t, 23, brief, func(t testing.TB) {
		p := dialAs(t, shared.url, another(t))
		for _, j := range []wire.Join{{User: "u", Session: "s"}, {Call: "c", Session: "s"}, {Call: "c", User: "u"}} {
			p.join(j)
			p.alive() // it has been handled by now
			for _, call := range []string{"c", "", "%20"} {
				if r := p.members(call); r.status != http.StatusNotFound {
					t.Errorf("after %+v the sessions of call %q: %d %s", j, call, r.status, r.body)
				}
			}
		}
	})
}

func TestConformance24JoinTwiceLeavesTheSession(t *testing.T) {
	conform(t, 24, brief, func(t testing.TB) {
		p := dial(t)
		a, b := enter(t, p, newID(), options{}), (*guest)(nil)
		b = enter(t, p, a.j.Call, options{})
		p.join(a.j)
		a.publish(webrtc.MimeTypeOpus, "mic")
		h := b.hears("voice", a)
		p.join(a.j)
		h.flows(b, 25)
		if n := len(p.all(closed(a.j.Session))); n != 0 {
			t.Errorf("%d close of the session", n)
		}
	})
}

func TestConformance25LeaveOfNobodyIsNothing(t *testing.T) {
	conform(t, 25, brief, func(t testing.TB) {
		p := dial(t)
		id := newID()
		p.leave(id)
		p.leave("")
		p.alive()
		if f := p.all(func(f frame) bool { return f.Type == wire.TypeClose && (f.Session == id || f.Session == "") }); len(f) > 0 {
			t.Errorf("got %+v", f)
		}
	})
}

func TestConformance26LeaveIsClosedOnce(t *testing.T) {
	conform(t, 26, brief, func(t testing.TB) {
		p := dial(t)
		g := enter(t, p, newID(), options{})
		g.p.leave(g.j.Session)
		p.await("close", closed(g.j.Session))
		p.leave(g.j.Session)
		g.close()
		p.alive()
		if n := len(p.all(closed(g.j.Session))); n != 1 {
			t.Errorf("%d close of one session", n)
		}
	})
}

func TestConformance27JoinWithoutAnOfferEnds(t *testing.T) {
	conform(t, 27, patient, func(t testing.TB) {
		p := dial(t)
		j := newJoin(newID())
		begun := time.Now()
		p.join(j)
		took := p.await("close", closed(j.Session)).at.Sub(begun)
		if took < 9*time.Second || took > 20*time.Second {
			t.Errorf("closed after %s, want 10 s", took)
		}
		p.alive()
		if n := len(p.all(closed(j.Session))); n != 1 {
			t.Errorf("%d close of one session", n)
		}
	})
}

func TestConformance28UnusableOfferEndsTheSession(t *testing.T) {
	conform(t, 28, brief, func(t testing.TB) {
		p := dial(t)
		for _, data := range []string{`{"type":"offer","sdp":"nonsense"}`, `{"type":"offer","sdp":""}`, `{`} {
			j := newJoin(newID())
			p.join(j)
			begun := time.Now()
			p.rtc(j.Session, wire.KindSDP, []byte(data))
			if took := p.await("close after "+data, closed(j.Session)).at.Sub(begun); took > 5*time.Second {
				t.Errorf("closed %s after %s", took, data)
			}
		}
	})
}

func TestConformance29ReconnectMovesTheSession(t *testing.T) {
	conform(t, 29, brief, func(t testing.TB) {
		p1, p2 := dial(t), dial(t)
		a := newGuest(t, p1, newID(), options{})
		p1.join(a.j)
		p1.awaitMember(a.j.Call, a.j.Session)
		p2.listen(a.j.Session, a.onFrame)
		p2.send(wire.Envelope{Type: wire.TypeReconnect, Session: a.j.Session})
		a.p = p2 // in order behind the reconnect
		p2.rtc(a.j.Session, wire.KindSDP, wire.EncodeDescription(a.firstOffer()))
		a.arrive()
		a.publish(webrtc.MimeTypeOpus, "mic")
		b := enter(t, p1, a.j.Call, options{})
		b.publish(webrtc.MimeTypeOpus, "mic")
		a.hears("voice", b)
		b.hears("voice", a)
		a.rtc(wire.KindMute)
		p2.await("voice-off", voice(a.j.Session, wire.KindVoiceOff))
		p2.await("candidate", func(f frame) bool { return f.session() == a.j.Session && f.Message.Kind == wire.KindICE })
		p2.leave(a.j.Session)
		p2.await("close", closed(a.j.Session))
		p1.alive()
		if f := p1.all(func(f frame) bool { return f.session() == a.j.Session }); len(f) > 0 {
			t.Errorf("%d frames of the session on the old connection, the first a %s of kind %d", len(f), f[0].Type, f[0].Message.Kind)
		}
	})
}

func TestConformance30ClientsCannotTouchEachOther(t *testing.T) {
	conform(t, 30, brief, func(t testing.TB) {
		p, enemy := dial(t), dialAs(t, shared.url, another(t))
		a := enter(t, p, newID(), options{})
		a.publish(webrtc.MimeTypeOpus, "mic")
		b := enter(t, p, a.j.Call, options{})
		h := b.hears("voice", a)
		voices := len(p.all(voice(a.j.Session, wire.KindVoiceOff)))
		enemy.rtc(a.j.Session, wire.KindMute, nil)
		enemy.rtc(a.j.Session, wire.KindSDP, []byte(`{"type":"offer","sdp":"nonsense"}`))
		enemy.rtc(a.j.Session, wire.KindScreenOn, wire.EncodeStream(wire.KindScreenOn, "screen"))
		enemy.send(wire.Envelope{Type: wire.TypeReconnect, Session: a.j.Session})
		enemy.leave(a.j.Session)
		enemy.alive()
		h.flows(b, 50)
		if len(p.all(closed(a.j.Session))) > 0 || len(p.all(voice(a.j.Session, wire.KindVoiceOff))) != voices {
			t.Error("another client closed or muted the session")
		}
		if f := enemy.all(func(f frame) bool { return f.session() == a.j.Session }); len(f) > 0 {
			t.Errorf("another client gets frames of the session: %+v", f[0])
		}
		// The same session ID in two clients is two sessions.
		twin := a.j
		enemy.join(twin)
		enemy.awaitMember(twin.Call, twin.Session)
		enemy.leave(twin.Session)
		enemy.await("close of the twin", closed(twin.Session))
		h.flows(b, 25)
	})
}

func TestConformance31MessagesNameTheirSession(t *testing.T) {
	conform(t, 31, brief, func(t testing.TB) {
		p := dial(t)
		a, b := enter(t, p, newID(), options{}), (*guest)(nil)
		b = enter(t, p, a.j.Call, options{})
		a.publish(webrtc.MimeTypeOpus, "mic")
		b.hears("voice", a)
		a.rtc(wire.KindMute)
		p.await("voice-off", voice(a.j.Session, wire.KindVoiceOff))
		seen := map[wire.Kind]bool{}
		for _, f := range p.all(func(f frame) bool { return f.Type == wire.TypeRTC || f.Type == wire.TypeVAD }) {
			g := a
			if f.Message.Session == b.j.Session {
				g = b
			}
			m := f.Message
			if m.Group != shared.client.id || m.User != g.j.User || m.Session != g.j.Session || m.Call != g.j.Call {
				t.Errorf("a %s of kind %d names group %s user %s session %s call %s", f.Type, m.Kind, m.Group, m.User, m.Session, m.Call)
			}
			if (f.Type == wire.TypeVAD) != (m.Kind == wire.KindVoiceOn || m.Kind == wire.KindVoiceOff) {
				t.Errorf("kind %d comes as %s", m.Kind, f.Type)
			}
			seen[m.Kind] = true
		}
		if want := map[wire.Kind]bool{wire.KindICE: true, wire.KindSDP: true, wire.KindVoiceOff: true}; !cmp.Equal(seen, want) {
			t.Errorf("kinds %v, want %v", seen, want)
		}
	})
}

func TestConformance32CandidatesAreWrapped(t *testing.T) {
	conform(t, 32, brief, func(t testing.TB) {
		p := dial(t)
		a, b := enter(t, p, newID(), options{}), (*guest)(nil)
		b = enter(t, p, a.j.Call, options{})
		a.publish(webrtc.MimeTypeOpus, "mic")
		b.hears("voice", a)
		types := map[string]int{}
		for _, f := range p.all(func(f frame) bool { return f.Type == wire.TypeRTC }) {
			var m map[string]any
			if err := json.Unmarshal(f.Message.Data, &m); err != nil {
				t.Fatalf("data %q: %v", f.Message.Data, err)
			}
			kind, _ := m["type"].(string)
			types[kind]++
			if f.Message.Kind == wire.KindICE {
				inner, _ := m["candidate"].(map[string]any)
				if text, ok := inner["candidate"].(string); !ok || kind != "candidate" || len(m) != 2 || !strings.HasPrefix(text, "candidate:") {
					t.Errorf("candidate %s", f.Message.Data)
				}
				continue
			}
			if _, ok := m["sdp"].(string); !ok || len(m) != 2 || kind != "offer" && kind != "answer" {
				t.Errorf("description %s", f.Message.Data)
			}
		}
		if types["candidate"] == 0 || types["offer"] == 0 || types["answer"] == 0 {
			t.Errorf("saw only %v", types)
		}
	})
}
