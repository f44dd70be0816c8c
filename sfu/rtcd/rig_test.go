package rtcd

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"golang.org/x/crypto/bcrypt"

	"sallyport/sfu"
	"sallyport/sfu/wire"
)

const (
	keyA = "0123456789abcdef0123456789abcdeA"
	keyB = "0123456789abcdef0123456789abcdeB"
	long = 30 * time.Second // a deadline that only a failure meets
)

// A rig is a server that listens on loopback and has the declared clients
// clientA and clientB.
type rig struct {
	t      *testing.T
	server *Server
	url    string
	reg    *prometheus.Registry
	stop   func() // ends Run and waits for it; also done by the test's cleanup
}

// startFake starts a rig in front of a recorder of what the SFU would get.
func startFake(t *testing.T, cfg Config, change ...func(*Server)) (*rig, *fakeMedia) {
	t.Helper()
	m := &fakeMedia{sessions: make(map[[2]string]*fakeSession)}
	r := &rig{t: t, reg: prometheus.NewRegistry()}
	s, err := newServer(cfg, m, r.options())
	if err != nil {
		t.Fatal(err)
	}
	s.accounts.cost = bcrypt.MinCost // the race detector makes hashing very slow
	for _, f := range change {
		f(s)
	}
	r.run(s)
	return r, m
}

// startReal starts a rig in front of a real SFU.
func startReal(t *testing.T) (*rig, *sfu.Server) {
	t.Helper()
	sockets, err := sfu.Listen(sfu.Config{Mode: "rtcd", UDP: "127.0.0.1:0", TCP: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	media, err := sfu.New(sockets, sfu.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- media.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("SFU: %v", err)
		}
	})
	r := &rig{t: t, reg: prometheus.NewRegistry()}
	s, err := New(Config{}, media, r.options())
	if err != nil {
		t.Fatal(err)
	}
	r.run(s)
	return r, media
}

func (r *rig) options() Options {
	return Options{
		Metrics: r.reg, Gatherer: r.reg, Logger: slog.New(slog.DiscardHandler),
		Version: Version{Date: "2026-01-02 03:04", Number: "0.1.0", Hash: "abcdef0"},
		Keys:    map[string][]byte{"clientA": []byte(keyA), "clientB": []byte(keyB)},
	}
}

func (r *rig) run(s *Server) {
	r.t.Helper()
	r.server = s
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	r.url = "http://" + ln.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, ln) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Errorf("run: %v", err)
		}
		if err := s.Close(); err != nil {
			r.t.Errorf("close: %v", err)
		}
	})
	r.t.Cleanup(r.stop)
}

// An answer is an HTTP response, read to its end.
type answer struct {
	status int
	header http.Header
	body   string
}

// object decodes the body as an object of strings.
func (a answer) object(t *testing.T) map[string]string {
	t.Helper()
	var m map[string]string
	if err := json.Unmarshal([]byte(a.body), &m); err != nil {
		t.Fatalf("body %q is no JSON object of strings: %v", a.body, err)
	}
	if got := a.header.Get("Content-Type"); got != "application/json" {
		t.Errorf("content type %q", got)
	}
	if !strings.HasSuffix(a.body, "\n") {
		t.Errorf("body %q ends without a newline", a.body)
	}
	return m
}

// do sends a request; auth is "client:key", "Bearer …" or "".
func (r *rig) do(method, path, auth, body string) answer {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), long)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, r.url+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	authorize(req.Header, auth)
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(text)}
}

func authorize(h http.Header, auth string) {
	if strings.HasPrefix(auth, "Bearer ") {
		h.Set("Authorization", auth)
	} else if user, key, ok := strings.Cut(auth, ":"); ok {
		req := http.Request{Header: h}
		req.SetBasicAuth(user, key)
	}
}

func credentials(client, key string) string {
	b, _ := json.Marshal(map[string]string{"clientID": client, "authKey": key})
	return string(b)
}

// A plugin is the other end of a WebSocket.
type plugin struct {
	t     *testing.T
	ws    *websocket.Conn
	hello wire.Envelope
}

// dial connects and takes the hello.
func (r *rig) dial(auth string, o ...websocket.DialOptions) *plugin {
	r.t.Helper()
	p := r.dialSilent(auth, o...)
	p.hello = p.read()
	if p.hello.Type != wire.TypeHello {
		r.t.Fatalf("first message is %+v", p.hello)
	}
	return p
}

// dialSilent connects and reads nothing.
func (r *rig) dialSilent(auth string, o ...websocket.DialOptions) *plugin {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), long)
	defer cancel()
	var opts websocket.DialOptions
	if len(o) > 0 {
		opts = o[0]
	}
	opts.HTTPHeader = make(http.Header)
	authorize(opts.HTTPHeader, auth)
	ws, _, err := websocket.Dial(ctx, r.url+"/ws", &opts)
	if err != nil {
		r.t.Fatal(err)
	}
	ws.SetReadLimit(maxFrame)
	p := &plugin{t: r.t, ws: ws}
	r.t.Cleanup(func() { _ = ws.CloseNow() })
	return p
}

// lose cuts a connection of clientA and waits until so many are left.
func (r *rig) lose(p *plugin, left float64) {
	r.t.Helper()
	_ = p.ws.CloseNow()
	open := r.server.metrics.connections.WithLabelValues("clientA")
	until(r.t, "the connection to end", func() bool { return testutil.ToFloat64(open) == left })
}

func (p *plugin) readErr() (wire.Envelope, error) {
	ctx, cancel := context.WithTimeout(context.Background(), long)
	defer cancel()
	typ, frame, err := p.ws.Read(ctx)
	if err != nil {
		return wire.Envelope{}, err
	}
	if typ != websocket.MessageBinary {
		p.t.Errorf("message of type %v", typ)
	}
	return wire.Decode(frame)
}

func (p *plugin) read() wire.Envelope {
	p.t.Helper()
	e, err := p.readErr()
	if err != nil {
		p.t.Fatalf("read message: %v", err)
	}
	return e
}

func (p *plugin) sendBytes(typ websocket.MessageType, frame []byte) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), long)
	defer cancel()
	if err := p.ws.Write(ctx, typ, frame); err != nil {
		p.t.Fatalf("write message: %v", err)
	}
}

func (p *plugin) send(e wire.Envelope) {
	p.t.Helper()
	frame, err := e.Append(nil)
	if err != nil {
		p.t.Fatal(err)
	}
	p.sendBytes(websocket.MessageBinary, frame)
}

func (p *plugin) join(call, session string) {
	p.t.Helper()
	p.send(wire.Envelope{Type: wire.TypeJoin, Join: wire.Join{Call: call, User: "u1", Session: session, Channel: "h1"}})
}

func (p *plugin) rtc(session string, kind wire.Kind, data string) {
	p.t.Helper()
	p.send(wire.Envelope{Type: wire.TypeRTC, Message: wire.Message{Session: session, Kind: kind, Data: []byte(data)}})
}

func (p *plugin) leave(session string) {
	p.t.Helper()
	p.send(wire.Envelope{Type: wire.TypeLeave, Session: session})
}

// until waits for something that no channel tells of.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(long); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("timeout waiting for %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// fakeMedia is a media that records what sessions are told.
type fakeMedia struct {
	mu       sync.Mutex
	refuse   error // what Join fails with
	sessions map[[2]string]*fakeSession
	forgot   []string // groups
}

func (m *fakeMedia) Forget(group string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.forgot = append(m.forgot, group)
}

func (m *fakeMedia) Join(member sfu.Member, sig sfu.Signal) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := [2]string{member.Group, member.Session}
	switch {
	case member.Call == "" || member.User == "" || member.Session == "":
		return sfu.ErrInvalid
	case m.refuse != nil:
		return m.refuse
	case m.sessions[key] != nil:
		return sfu.ErrExists
	}
	m.sessions[key] = &fakeSession{media: m, member: member, sig: sig, told: make(chan string, 100)}
	return nil
}

func (m *fakeMedia) Session(group, id string) session {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.sessions[[2]string{group, id}]; s != nil {
		return s
	}
	return nil
}

func (m *fakeMedia) Sessions(group, call string) ([]sfu.Member, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []sfu.Member
	for _, s := range m.sessions {
		if s.member.Group == group && s.member.Call == call {
			all = append(all, s.member)
		}
	}
	if len(all) == 0 {
		return nil, sfu.ErrNoCall
	}
	return all, nil
}

// session waits for a session to be joined.
func (m *fakeMedia) session(t *testing.T, group, id string) *fakeSession {
	t.Helper()
	until(t, "session "+id, func() bool { return m.Session(group, id) != nil })
	return m.Session(group, id).(*fakeSession)
}

type fakeSession struct {
	media  *fakeMedia
	member sfu.Member
	told   chan string

	mu  sync.Mutex
	sig sfu.Signal
}

func (s *fakeSession) Member() sfu.Member          { return s.member }
func (s *fakeSession) Describe(d wire.Description) { s.told <- "describe " + d.Type + " " + d.SDP }
func (s *fakeSession) Candidate(c wire.Candidate)  { s.told <- "candidate " + c.Candidate }
func (s *fakeSession) Mute()                       { s.told <- "mute" }
func (s *fakeSession) Unmute()                     { s.told <- "unmute" }
func (s *fakeSession) ScreenOn(id string)          { s.told <- "screen on " + id }
func (s *fakeSession) ScreenOff()                  { s.told <- "screen off" }
func (s *fakeSession) VideoOn(id string)           { s.told <- "video on " + id }
func (s *fakeSession) VideoOff()                   { s.told <- "video off" }
func (s *fakeSession) Leave()                      { s.told <- "leave"; s.end() }

func (s *fakeSession) end() {
	s.media.mu.Lock()
	key := [2]string{s.member.Group, s.member.Session}
	ended := s.media.sessions[key] == s
	if ended {
		delete(s.media.sessions, key)
	}
	s.media.mu.Unlock()
	if ended {
		s.Signal().Closed()
	}
}

func (s *fakeSession) Rebind(sig sfu.Signal) {
	s.mu.Lock()
	s.sig = sig
	s.mu.Unlock()
	s.told <- "rebind"
}

func (s *fakeSession) Signal() sfu.Signal {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sig
}

// hears fails unless the session is told exactly this next.
func (s *fakeSession) hears(t *testing.T, want string) {
	t.Helper()
	select {
	case got := <-s.told:
		if got != want {
			t.Errorf("session is told %q, want %q", got, want)
		}
	case <-time.After(long):
		t.Fatalf("session is not told %q", want)
	}
}

// A logBuffer collects log lines.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// fakeListener pretends to listen on an address without doing so.
type fakeListener struct{ addr netip.AddrPort }

func (l fakeListener) Accept() (net.Conn, error) { return nil, net.ErrClosed }
func (l fakeListener) Close() error              { return nil }
func (l fakeListener) Addr() net.Addr            { return net.TCPAddrFromAddrPort(l.addr) }
