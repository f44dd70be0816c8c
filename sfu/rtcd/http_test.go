package rtcd

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/mod/semver"

	"sallyport/sfu"
	"sallyport/sfu/wire"
)

func TestStatement01VersionHasSixStringsAndACompatibleSemver(t *testing.T) {
	r, _ := startFake(t, Config{})
	a := r.do("GET", "/version", "", "")
	v := a.object(t)
	for _, key := range []string{"buildDate", "buildVersion", "buildHash", "goVersion", "goOS", "goArch"} {
		if v[key] == "" {
			t.Errorf("%s is missing", key)
		}
	}
	if a.status != 200 || len(v) != 6 {
		t.Errorf("status %d, %d keys: %v", a.status, len(v), v)
	}
	if got := v["buildVersion"]; got != "v1.2.6+sallyport.0.1.0" || !semver.IsValid(got) || semver.Compare(got, "v1.2.5") <= 0 {
		t.Errorf("buildVersion %q", got)
	}
}

func TestVersionIsSemverWhateverOursIs(t *testing.T) {
	for number, want := range map[string]string{
		"":                "v1.2.6+sallyport",
		"0.1.0":           "v1.2.6+sallyport.0.1.0",
		"0.1.0-rc1+dirty": "v1.2.6+sallyport.0.1.0-rc1.dirty",
		"(devel) ü..":     "v1.2.6+sallyport.devel",
	} {
		if got := compatibleVersion(number); got != want || !semver.IsValid(got) || semver.Compare(got, "v1.2.6") != 0 {
			t.Errorf("version of %q is %q, want %q", number, got, want)
		}
	}
}

func TestStatement02WrongMethodsAndUnknownPathsAre404(t *testing.T) {
	r, _ := startFake(t, Config{SelfRegistration: true, Store: t.TempDir()})
	for _, request := range []string{
		"POST /version", "HEAD /version", "GET /register", "PUT /register", "GET /unregister", "GET /login", "POST /system", "POST /ws",
		"GET /", "GET /version/", "GET //version", "GET /ws/", "GET /stats", "GET /health",
		"POST /calls/c/sessions", "GET /calls/c", "GET /calls//sessions", "GET /calls/c/sessions/", "GET /calls/c/sessions/s/x",
		"GET /debug/pprof/", "GET /debug/pprof/heap",
	} {
		method, path, _ := strings.Cut(request, " ")
		a := r.do(method, path, "clientA:"+keyA, credentials("clientC", keyA))
		if a.status != 404 || method != "HEAD" && a.body != "404 page not found\n" || !strings.HasPrefix(a.header.Get("Content-Type"), "text/plain") {
			t.Errorf("%s: %d %q", request, a.status, a.body)
		}
	}
	if a := r.do("POST", "/login", "", credentials("clientC", keyA)); a.status != 401 {
		t.Errorf("one of these registered a client: %d %s", a.status, a.body)
	}
}

func TestStatement03SystemIsAFiniteNumber(t *testing.T) {
	r, _ := startFake(t, Config{})
	var v map[string]float64
	a := r.do("GET", "/system", "", "")
	if err := json.Unmarshal([]byte(a.body), &v); err != nil || a.status != 200 || len(v) != 1 || v["cpu_load"] <= 0 || v["cpu_load"] > 1/minIdle {
		t.Errorf("%d %q: %v", a.status, a.body, err)
	}
}

func TestDrainMakesSystemUnavailableAndNothingElse(t *testing.T) {
	r, _ := startFake(t, Config{})
	r.server.Drain()
	if a := r.do("GET", "/system", "", ""); a.status != 503 || a.object(t)["code"] != "503" {
		t.Errorf("/system: %d %q", a.status, a.body)
	}
	if a := r.do("GET", "/version", "", ""); a.status != 200 {
		t.Errorf("/version: %d", a.status)
	}
	r.dial("clientA:" + keyA)
}

func TestStatement04To07And09SelfRegistration(t *testing.T) {
	r, _ := startFake(t, Config{SelfRegistration: true, Store: t.TempDir()})
	id, key := strings.Repeat("i", 26), strings.Repeat("k", 32)
	for _, tt := range []struct {
		name, auth, body string
		status           int
		want             map[string]string // nil = an error in the decoder's words
	}{
		{"a short key", "", credentials(id, key[1:]), 400, map[string]string{"code": "400", "error": "registration failed: key not long enough"}},
		{"a long key", "", credentials(id, strings.Repeat("k", 73)), 400, map[string]string{"code": "400", "error": "registration failed: bcrypt: password length exceeds 72 bytes"}},
		{"no client", "", credentials("", key), 400, map[string]string{"code": "400", "error": "registration failed: error: empty key"}},
		{"a long client", "", credentials(strings.Repeat("i", 65), key), 400, map[string]string{"code": "400", "error": "registration failed: failed to set key: error: key too large"}},
		{"a declared client", "", credentials("clientA", key), 400, map[string]string{"code": "400", "error": "registration failed: already registered"}},
		{"a new client", "", credentials(id, key), 201, map[string]string{"code": "201", "clientID": id}},
		{"the same again", "", credentials(id, key), 400, map[string]string{"code": "400", "error": "registration failed: already registered"}},
		{"a new client with an invalid credential", "nobody:" + key, credentials("other", strings.Repeat("k", 72)), 201, map[string]string{"code": "201", "clientID": "other"}},
		{"no body", "", "", 400, map[string]string{"code": "400", "error": "EOF"}},
		{"an array", "", "[]", 400, nil},
		{"a number", "", `{"clientID":1}`, 400, nil},
		{"a body of a megabyte", "", `{"clientID":"` + strings.Repeat("x", 1<<20), 413, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := r.do("POST", "/register", tt.auth, tt.body)
			got := a.object(t)
			if a.status != tt.status {
				t.Errorf("status %d, want %d", a.status, tt.status)
			}
			if tt.want == nil && got["error"] == "" {
				t.Errorf("no error in %v", got)
			} else if tt.want != nil && !cmp.Equal(tt.want, got) {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
	r.dial(id + ":" + key) // works at once
}

func TestStatement08WithoutSelfRegistrationNobodyRegisters(t *testing.T) {
	r, _ := startFake(t, Config{})
	for auth, text := range map[string]string{
		"":                    "authentication failed: invalid auth header",
		":" + keyA:            "authentication failed: unauthorized",
		"clientA:" + keyB:     "authentication failed",
		"nobody:" + keyA:      "authentication failed",
		"Bearer nonsense":     "authentication failed: token is invalid",
		"clientA:" + keyA:     "authentication failed: unauthorized", // a client is no registrar
		"clientA:" + keyA[1:]: "authentication failed",
	} {
		a := r.do("POST", "/register", auth, credentials("clientC", keyA))
		if got := a.object(t); a.status != 401 || !cmp.Equal(got, map[string]string{"code": "401", "error": text}) {
			t.Errorf("credential %q: %d %v", auth, a.status, got)
		}
	}
	if a := r.do("POST", "/unregister", "", ""); a.status != 403 || a.object(t)["error"] != "unregister not enabled" {
		t.Errorf("/unregister: %d %s", a.status, a.body)
	}
}

func TestStatement10BearerTokens(t *testing.T) {
	r, m := startFake(t, Config{})
	p := r.dial("clientA:" + keyA)
	p.join("c1", "s1")
	m.session(t, "clientA", "s1")
	login := func() string {
		a := r.do("POST", "/login", "", credentials("clientA", keyA))
		token := a.object(t)["bearerToken"]
		if a.status != 200 || len(token) != 32 || a.object(t)["code"] != "200" {
			t.Fatalf("login: %d %s", a.status, a.body)
		}
		return token
	}
	first := login()
	if a := r.do("GET", "/calls/c1/sessions", "Bearer "+first, ""); a.status != 200 {
		t.Errorf("first token: %d %s", a.status, a.body)
	}
	r.dial("Bearer " + first)
	second := login()
	if a := r.do("GET", "/calls/c1/sessions", "Bearer "+first, ""); a.status != 401 {
		t.Errorf("replaced token: %d", a.status)
	}
	if a := r.do("GET", "/calls/c1/sessions", "Bearer "+second, ""); a.status != 200 {
		t.Errorf("second token: %d", a.status)
	}
}

func TestLoginTellsNobodyWhichClientsExist(t *testing.T) {
	r, _ := startFake(t, Config{})
	want := map[string]string{"code": "401", "error": "login failed: authentication failed"}
	for _, body := range []string{credentials("clientA", keyB), credentials("nobody", keyA), credentials("", keyA), "{}", "null"} {
		if a := r.do("POST", "/login", "", body); a.status != 401 || !cmp.Equal(want, a.object(t)) {
			t.Errorf("%s: %d %s", body, a.status, a.body)
		}
	}
	if a := r.do("POST", "/login", "", ""); a.status != 400 || a.object(t)["error"] != "EOF" {
		t.Errorf("no body: %d %s", a.status, a.body)
	}
}

func TestStatement11Unregister(t *testing.T) {
	r, media := startFake(t, Config{SelfRegistration: true, Store: t.TempDir()})
	if a := r.do("POST", "/register", "", credentials("clientC", keyA)); a.status != 201 {
		t.Fatalf("register: %d %s", a.status, a.body)
	}
	p := r.dial("clientC:" + keyA)
	body := func(id string) string { return `{"clientID":"` + id + `"}` }
	for _, tt := range []struct {
		name, auth, body string
		status           int
		text             string
	}{
		{"nobody", "", body("clientC"), 401, "authentication failed: invalid auth header"},
		{"a wrong key", "clientC:" + keyB, body("clientC"), 401, "authentication failed"},
		{"no body", "clientC:" + keyA, "", 400, "EOF"},
		{"no client", "clientC:" + keyA, body(""), 400, "client id should not be empty"},
		{"another client", "clientA:" + keyA, body("clientC"), 403, "client id not valid"},
		{"a declared client itself", "clientA:" + keyA, body("clientA"), 400, "unregister failed: the client is declared in the configuration"},
		{"the client itself", "clientC:" + keyA, body("clientC"), 200, ""},
		{"the client once more", "clientC:" + keyA, body("clientC"), 401, "authentication failed"},
	} {
		if a := r.do("POST", "/unregister", tt.auth, tt.body); a.status != tt.status || a.object(t)["error"] != tt.text {
			t.Errorf("%s: %d %s, want %d %q", tt.name, a.status, a.body, tt.status, tt.text)
		}
	}
	if _, err := p.readErr(); err == nil {
		t.Error("the connection of a client that is gone stays open")
	}
	if a := r.do("GET", "/metrics", "", ""); strings.Contains(a.body, `"clientC"`) {
		t.Errorf("a client that is gone is still counted:\n%s", a.body)
	}
	if want := []string{"clientC"}; !slices.Equal(media.forgot, want) {
		t.Errorf("the media server forgot %q, want %q", media.forgot, want)
	}
}

func TestBrowsersDoNotRegister(t *testing.T) {
	r, _ := startFake(t, Config{SelfRegistration: true, Store: t.TempDir()})
	for _, path := range []string{"/register", "/unregister", "/login"} {
		req, err := http.NewRequest("POST", r.url+path, strings.NewReader(credentials("clientC", keyA)))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "text/plain") // what a page may send without asking first
		req.Header.Set("Origin", "https://evil.example")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusForbidden {
			t.Errorf("%s: %d, want 403", path, resp.StatusCode)
		}
	}
}

func TestPanicIsLoggedAndEndsOneRequest(t *testing.T) {
	log := &logBuffer{}
	r, _ := startFake(t, Config{}, func(s *Server) {
		s.log = slog.New(slog.NewTextHandler(log, nil))
		s.routes["/version"] = route{http.MethodGet, func(http.ResponseWriter, *http.Request) { panic("a mistake") }}
	})
	if resp, err := http.Get(r.url + "/version"); err == nil {
		resp.Body.Close()
		t.Errorf("answered %d", resp.StatusCode)
	}
	if text := log.String(); !strings.Contains(text, "level=ERROR") || !strings.Contains(text, "a mistake") {
		t.Errorf("log %q", text)
	}
	if a := r.do("GET", "/system", "", ""); a.status != 200 {
		t.Errorf("after it: %d %s", a.status, a.body)
	}
}

func TestStatement12SessionsOfACall(t *testing.T) {
	r, _ := startReal(t)
	p := r.dial("clientA:" + keyA)
	p.send(wire.Envelope{Type: wire.TypeJoin, Join: wire.Join{Call: "callX", User: "u", Session: "sX", Channel: "x", AV1: true, AV1Set: true}})
	until(t, "the session", func() bool { return r.do("GET", "/calls/callX/sessions", "clientA:"+keyA, "").status == 200 })

	const one = `{"GroupID":"clientA","CallID":"callX","UserID":"u","SessionID":"sX","Props":{"av1Support":true,"channelID":"x","dcSignaling":null}}`
	for _, tt := range []struct {
		path, auth string
		status     int
		body       string
	}{
		{"/calls/callX/sessions", "clientA:" + keyA, 200, "[" + one + "]\n"},
		{"/calls/callX/sessions/sX", "clientA:" + keyA, 200, one + "\n"},
		{"/calls/callX/sessions/sY", "clientA:" + keyA, 404, "failed to get session config: session not found\n"},
		{"/calls/callY/sessions", "clientA:" + keyA, 404, "failed to get session configs: call not found\n"},
		{"/calls/callY/sessions/sX", "clientA:" + keyA, 404, "failed to get session config: call not found\n"},
		{"/calls/callX/sessions", "clientB:" + keyB, 404, "failed to get session configs: group not found\n"},
		{"/calls/callX/sessions/sX", "clientB:" + keyB, 404, "failed to get session config: group not found\n"},
		{"/calls/callX/sessions", "clientA:" + keyB, 401, "unauthorized\n"},
		{"/calls/callX/sessions", "", 401, "unauthorized\n"},
		{"/calls/callX/sessions", ":" + keyA, 401, "unauthorized\n"},
	} {
		if a := r.do("GET", tt.path, tt.auth, ""); a.status != tt.status || a.body != tt.body {
			t.Errorf("%s as %s: %d %q, want %d %q", tt.path, tt.auth, a.status, a.body, tt.status, tt.body)
		}
	}
}

// brokenMedia fails for a reason that does not mean the call is over.
type brokenMedia struct{ *fakeMedia }

func (brokenMedia) Sessions(string, string) ([]sfu.Member, error) { return nil, errors.New("broken") }

func TestAnInternalErrorIsNo404(t *testing.T) {
	r, _ := startFake(t, Config{}, func(s *Server) { s.media = brokenMedia{} })
	if a := r.do("GET", "/calls/c1/sessions", "clientA:"+keyA, ""); a.status != 500 {
		t.Errorf("%d %q", a.status, a.body)
	}
}

func TestMetricsKeepTheirNames(t *testing.T) {
	r, m := startFake(t, Config{})
	p := r.dial("clientA:" + keyA)
	p.join("c1", "s1")
	m.session(t, "clientA", "s1").Signal().Voice(true)
	p.read()
	a := r.do("POST", "/metrics", "", "")
	for _, want := range []string{
		`rtcd_ws_connections_total{clientID="clientA"} 1`,
		`rtcd_ws_messages_total{clientID="clientA",direction="in",type="join"} 1`,
		`rtcd_ws_messages_total{clientID="clientA",direction="out",type="vad"} 1`,
	} {
		if !strings.Contains(a.body, want+"\n") {
			t.Errorf("no %s in\n%s", want, a.body)
		}
	}
}

func TestTheOperatorIsWarnedOfAnOpenAPI(t *testing.T) {
	for addr, want := range map[string]bool{
		"127.0.0.1:8045": false, "[::1]:8045": false, "10.1.2.3:8045": false, "192.168.0.1:8045": false, "[fd00::1]:8045": false,
		"0.0.0.0:8045": true, "[::]:8045": true, "203.0.113.5:8045": true, "[2001:db8::1]:8045": true,
	} {
		var log logBuffer
		s, err := newServer(Config{}, &fakeMedia{}, Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Run(t.Context(), fakeListener{netip.MustParseAddrPort(addr)}); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: run: %v", addr, err)
		}
		if got := strings.Contains(log.String(), "level=WARN"); got != want {
			t.Errorf("%s: warned %v, want %v: %s", addr, got, want, log.String())
		}
	}
}

func TestNewRefusesWhatCannotWork(t *testing.T) {
	for name, tt := range map[string]struct {
		cfg  Config
		keys map[string][]byte
	}{
		"a client without a key":              {Config{Clients: []Client{{ID: "a"}}}, nil},
		"a short key":                         {Config{}, map[string][]byte{"a": []byte("short")}},
		"an empty ID":                         {Config{}, map[string][]byte{"": []byte(keyA)}},
		"a long ID":                           {Config{}, map[string][]byte{strings.Repeat("i", 65): []byte(keyA)}},
		"self-registration without directory": {Config{SelfRegistration: true}, nil},
	} {
		if _, err := newServer(tt.cfg, &fakeMedia{}, Options{Keys: tt.keys}); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}
