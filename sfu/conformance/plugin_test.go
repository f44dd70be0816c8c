package conformance

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"sallyport/sfu/wire"
)

// An account is an installation of Mattermost: client ID and auth key.
type account struct{ id, key string }

// newID returns 26 letters and digits, as Mattermost's IDs are.
func newID() string { return strings.ToLower(rand.Text()) } // rand.Text has 26 characters of base32

// newAccount invents an account that no server knows yet.
func newAccount() account { return account{newID(), newID() + "012345"} }

func (a account) basic(r *http.Request) { r.SetBasicAuth(a.id, a.key) }

// bearer authenticates with a token.
func bearer(token string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }
}

// nobody sends no credential.
func nobody(*http.Request) {}

func (a account) body() string { return fmt.Sprintf(`{"clientID":%q,"authKey":%q}`, a.id, a.key) }

// register registers an account where self-registration is on.
func (a account) register(url string) error {
	r, err := request(http.MethodPost, url+"/register", a.body(), nobody)
	if err != nil {
		return err
	}
	if r.status != http.StatusCreated {
		return fmt.Errorf("%d %s", r.status, r.body)
	}
	return nil
}

// another registers one more account with the server under test.
func another(t testing.TB) account {
	t.Helper()
	a := newAccount()
	if err := a.register(shared.url); err != nil {
		if shared.target != "" {
			t.Skipf("a second client cannot register with this server")
		}
		t.Fatal(err)
	}
	return a
}

// A reply is an HTTP response.
type reply struct {
	status int
	header http.Header
	body   string
}

// strings decodes the body as the plugin does: into a map of strings.
func (r reply) strings(t testing.TB) map[string]string {
	t.Helper()
	var m map[string]string
	if err := json.Unmarshal([]byte(r.body), &m); err != nil {
		t.Fatalf("reply %d %q: %v", r.status, r.body, err)
	}
	if got := r.header.Get("Content-Type"); !strings.HasPrefix(got, "application/json") {
		t.Errorf("reply %q has the type %q", r.body, got)
	}
	return m
}

func request(method, url, body string, auth func(*http.Request)) (reply, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return reply{}, err
	}
	auth(r)
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return reply{}, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 1<<22))
	return reply{response.StatusCode, response.Header, string(text)}, err
}

// ask makes a request that must be answered.
func ask(t testing.TB, method, url, body string, auth func(*http.Request)) reply {
	t.Helper()
	r, err := request(method, url, body, auth)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// expect makes a request and wants a status, and JSON of strings with it.
func expect(t testing.TB, status int, r reply) map[string]string {
	t.Helper()
	m := r.strings(t)
	if r.status != status || m["code"] != fmt.Sprint(status) {
		t.Errorf("got %d %s, want %d", r.status, r.body, status)
	}
	return m
}

// A frame is an envelope that came from the server.
type frame struct {
	wire.Envelope
	at time.Time
}

// session is whom the frame is about.
func (f frame) session() string {
	if f.Type == wire.TypeRTC || f.Type == wire.TypeVAD {
		return f.Message.Session
	}
	return f.Session
}

// A plugin is one WebSocket connection to the server.
type plugin struct {
	t       testing.TB
	url     string
	account account
	ws      *websocket.Conn
	done    chan struct{} // closed when the connection has ended
	err     error         // why; valid then

	mu     sync.Mutex // guards the following
	frames []frame
	guests map[string]func(frame) // by session
}

// dial connects the suite's client to the server under test.
func dial(t testing.TB) *plugin {
	t.Helper()
	return dialAs(t, shared.url, shared.client)
}

// dialAs connects a client to a server and waits for its hello.
func dialAs(t testing.TB, url string, a account) *plugin {
	t.Helper()
	p, err := connect(t, url, a, nil)
	if err != nil {
		t.Fatal(err)
	}
	p.await("hello", func(f frame) bool { return f.Type == wire.TypeHello })
	return p
}

// connect opens /ws. ponging decides for each ping whether it is answered; nil
// answers all.
func connect(t testing.TB, url string, a account, ponging func() bool) (*plugin, error) {
	t.Helper()
	r := &http.Request{Header: http.Header{}}
	a.basic(r)
	return connectWith(t, url, a, &websocket.DialOptions{
		HTTPHeader:     r.Header,
		OnPingReceived: func(context.Context, []byte) bool { return ponging == nil || ponging() },
	})
}

func connectWith(t testing.TB, url string, a account, o *websocket.DialOptions) (*plugin, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, url+"/ws", o)
	if err != nil {
		return nil, err
	}
	ws.SetReadLimit(1 << 20)
	p := &plugin{t: t, url: url, account: a, ws: ws, done: make(chan struct{}), guests: map[string]func(frame){}}
	go p.read()
	t.Cleanup(p.close)
	return p, nil
}

func (p *plugin) close() {
	_ = p.ws.CloseNow()
	<-p.done
}

func (p *plugin) read() {
	defer close(p.done)
	for {
		kind, b, err := p.ws.Read(context.Background())
		if err != nil {
			p.err = err
			return
		}
		at := time.Now()
		if kind != websocket.MessageBinary {
			p.t.Errorf("the server sent a text frame: %q", b)
			continue
		}
		e, err := wire.Decode(b)
		if err != nil {
			p.t.Errorf("the server sent %x: %v", b, err)
			continue
		}
		f := frame{e, at}
		p.mu.Lock()
		p.frames = append(p.frames, f)
		tell := p.guests[f.session()]
		p.mu.Unlock()
		if tell != nil {
			tell(f)
		}
	}
}

// listen gives the frames of a session to tell, which must not block.
func (p *plugin) listen(session string, tell func(frame)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.guests[session] = tell
}

func (p *plugin) send(e wire.Envelope) {
	p.t.Helper()
	b, err := e.Append(nil)
	if err != nil {
		p.t.Fatal(err)
	}
	p.sendFrame(websocket.MessageBinary, b)
}

func (p *plugin) sendFrame(kind websocket.MessageType, b []byte) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := p.ws.Write(ctx, kind, b); err != nil {
		p.t.Errorf("write to the server: %v", errors.Join(err, ctx.Err()))
	}
}

// join asks for a session.
func (p *plugin) join(j wire.Join) { p.t.Helper(); p.send(wire.Envelope{Type: wire.TypeJoin, Join: j}) }

// leave asks for the end of a session.
func (p *plugin) leave(session string) {
	p.t.Helper()
	p.send(wire.Envelope{Type: wire.TypeLeave, Session: session})
}

// rtc sends a message of a session. Like the plugin it fills nothing else.
func (p *plugin) rtc(session string, kind wire.Kind, data []byte) {
	p.t.Helper()
	p.send(wire.Envelope{Type: wire.TypeRTC, Message: wire.Message{Session: session, Kind: kind, Data: data}})
}

// all returns the frames that fit, from the start on.
func (p *plugin) all(fits func(frame) bool) []frame {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []frame
	for _, f := range p.frames {
		if fits(f) {
			out = append(out, f)
		}
	}
	return out
}

// await waits for the first frame that fits.
func (p *plugin) await(what string, fits func(frame) bool) frame {
	p.t.Helper()
	var found []frame
	until(p.t, what, func() bool { found = p.all(fits); return len(found) > 0 })
	return found[0]
}

// closed fits the end of a session.
func closed(session string) func(frame) bool {
	return func(f frame) bool { return f.Type == wire.TypeClose && f.Session == session }
}

// voice fits the speaking state of a session.
func voice(session string, kind wire.Kind) func(frame) bool {
	return func(f frame) bool {
		return f.Type == wire.TypeVAD && f.Message.Session == session && f.Message.Kind == kind
	}
}

// members asks the session API for a call.
func (p *plugin) members(call string) reply {
	p.t.Helper()
	return ask(p.t, http.MethodGet, p.url+"/calls/"+call+"/sessions", "", p.account.basic)
}

// awaitMember waits until the server has a session.
func (p *plugin) awaitMember(call, session string) {
	p.t.Helper()
	until(p.t, "session "+session, func() bool {
		r := p.members(call)
		return r.status == http.StatusOK && bytes.Contains([]byte(r.body), []byte(`"`+session+`"`))
	})
}

// alive proves that the connection still works: a join is understood.
func (p *plugin) alive() {
	p.t.Helper()
	j := newJoin(newID())
	p.join(j)
	p.awaitMember(j.Call, j.Session)
	p.leave(j.Session)
	p.await("the end of that session", closed(j.Session))
}

// newJoin invents a participant of a call.
func newJoin(call string) wire.Join {
	return wire.Join{Call: call, User: newID(), Session: newID(), Channel: newID(), AV1Set: true, DCSet: true}
}
