package conformance

import (
	"encoding/json"
	"math"
	"net/http"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/sfu/wire"
)

func TestConformance01VersionIsSixStrings(t *testing.T) {
	conform(t, 1, brief, func(t testing.TB) {
		r := ask(t, http.MethodGet, shared.url+"/version", "", nobody)
		m := r.strings(t)
		for _, key := range []string{"buildDate", "buildVersion", "buildHash", "goVersion", "goOS", "goArch"} {
			if _, ok := m[key]; !ok {
				t.Errorf("%s lacks %s", r.body, key)
			}
		}
		if r.status != http.StatusOK || len(m) != 6 {
			t.Errorf("got %d %s, want 200 and six keys", r.status, r.body)
		}
		if !atLeast125(m["buildVersion"]) {
			t.Errorf("buildVersion %q is not semver of 1.2.5 or later", m["buildVersion"])
		}
	})
}

// semver is that of semver.org, with an optional v in front.
var semver = regexp.MustCompile(`^v?(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?(\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?$`)

func atLeast125(v string) bool {
	m := semver.FindStringSubmatch(v)
	if m == nil {
		return false
	}
	for i, least := range []string{"1", "2", "5"} {
		if got := m[i+1]; len(got) != len(least) || got != least {
			return len(got) > len(least) || got > least
		}
	}
	return m[4] == "" // a prerelease comes before
}

func TestConformance02WrongMethodsHaveNoEffect(t *testing.T) {
	conform(t, 2, brief, func(t testing.TB) {
		a := newAccount()
		for _, wrong := range [][2]string{{http.MethodPost, "/version"}, {http.MethodGet, "/register"}, {http.MethodPut, "/register"}, {http.MethodGet, "/login"}, {http.MethodDelete, "/system"}} {
			r := ask(t, wrong[0], shared.url+wrong[1], a.body(), nobody)
			if r.status < 400 || r.status > 499 {
				t.Errorf("%s %s: %d, want 4xx", wrong[0], wrong[1], r.status)
			}
		}
		if r := ask(t, http.MethodPost, shared.url+"/login", a.body(), nobody); r.status == http.StatusOK {
			t.Error("the client is registered after all")
		}
	})
}

func TestConformance03SystemTellsTheLoad(t *testing.T) {
	conform(t, 3, alone, func(t testing.TB) {
		poll := func(while time.Duration) (lowest, highest float64) {
			lowest = math.Inf(1)
			for end := time.Now().Add(while); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
				r := ask(t, http.MethodGet, shared.url+"/system", "", nobody)
				var body map[string]json.Number
				if err := json.Unmarshal([]byte(r.body), &body); r.status != http.StatusOK || err != nil || len(body) != 1 {
					t.Fatalf("got %d %q, want only cpu_load", r.status, r.body)
				}
				load, err := body["cpu_load"].Float64()
				if err != nil || math.IsInf(load, 0) || math.IsNaN(load) || load < 0 {
					t.Fatalf("cpu_load is %q", body["cpu_load"])
				}
				lowest, highest = min(lowest, load), max(highest, load)
			}
			return lowest, highest
		}
		calm, _ := poll(2500 * time.Millisecond)
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for range 2 * runtime.NumCPU() {
			wg.Go(func() {
				for n := 0; ; n++ {
					if n%(1<<16) == 0 {
						select {
						case <-stop:
							return
						default:
						}
					}
				}
			})
		}
		_, busy := poll(2500 * time.Millisecond)
		close(stop)
		wg.Wait()
		// With others at work here there may be nothing left to add.
		if shared.target == "" && busy <= calm && calm < 90 {
			t.Errorf("load %g at rest and %g with every CPU busy", calm, busy)
		}
	})
}

// registering skips where nobody may register.
func registering(t testing.TB) account {
	t.Helper()
	return another(t)
}

func TestConformance04RegisterCreatesAClient(t *testing.T) {
	conform(t, 4, brief, func(t testing.TB) {
		registering(t)
		a := newAccount()
		if len(a.id) != 26 || len(a.key) != 32 {
			t.Fatalf("not the lengths of the plugin: %d and %d", len(a.id), len(a.key))
		}
		m := expect(t, http.StatusCreated, ask(t, http.MethodPost, shared.url+"/register", a.body(), nobody))
		if m["clientID"] != a.id || len(m) != 2 {
			t.Errorf("got %v, want clientID and code only", m)
		}
	})
}

func TestConformance05RegisterTwiceIsRefused(t *testing.T) {
	conform(t, 5, brief, func(t testing.TB) {
		a := registering(t)
		m := expect(t, http.StatusBadRequest, ask(t, http.MethodPost, shared.url+"/register", a.body(), nobody))
		if m["error"] != "registration failed: already registered" {
			t.Errorf("error is %q", m["error"])
		}
	})
}

func TestConformance06ShortKeysAreRefused(t *testing.T) {
	conform(t, 6, brief, func(t testing.TB) {
		registering(t)
		a := newAccount()
		a.key = a.key[:31]
		m := expect(t, http.StatusBadRequest, ask(t, http.MethodPost, shared.url+"/register", a.body(), nobody))
		if m["error"] != "registration failed: key not long enough" {
			t.Errorf("error is %q", m["error"])
		}
	})
}

func TestConformance07RegisterIgnoresAnInvalidCredential(t *testing.T) {
	conform(t, 7, brief, func(t testing.TB) {
		registering(t)
		for _, wrong := range []account{newAccount(), {"", "nothing"}} {
			a := newAccount()
			expect(t, http.StatusCreated, ask(t, http.MethodPost, shared.url+"/register", a.body(), wrong.basic))
			dialAs(t, shared.url, a).close() // the new key works at once
		}
	})
}

func TestConformance08RegisterNeedsACredentialWhenSelfRegistrationIsOff(t *testing.T) {
	conform(t, 8, brief, func(t testing.TB) {
		srv := start(t, settings{closed: true})
		a := newAccount()
		for _, wrong := range []func(*http.Request){nobody, a.basic, account{"", "adminsecret"}.basic, bearer("token")} {
			m := expect(t, http.StatusUnauthorized, ask(t, http.MethodPost, srv.api+"/register", a.body(), wrong))
			if !strings.HasPrefix(m["error"], "authentication failed") {
				t.Errorf("error is %q", m["error"])
			}
		}
		t.Log("the half with the admin secret does not apply: Sallyport has none, clients are declared in its configuration")
	})
}

func TestConformance09RepliesHoldStringsOnly(t *testing.T) {
	conform(t, 9, brief, func(t testing.TB) {
		a := registering(t)
		post := func(path, body string, auth func(*http.Request)) {
			r := ask(t, http.MethodPost, shared.url+path, body, auth)
			m := r.strings(t) // fails if a value is no string
			if m["code"] == "" || !strings.HasSuffix(r.body, "\n") {
				t.Errorf("%s %s: %d %q", path, body, r.status, r.body)
			}
			if (r.status >= 400) != (m["error"] != "") {
				t.Errorf("%s %s: %d with error %q", path, body, r.status, m["error"])
			}
		}
		for _, body := range []string{"", "{", "[]", `{"clientID":1}`, `{}`, a.body()} {
			post("/register", body, nobody)
			post("/login", body, nobody)
			post("/unregister", body, nobody)
		}
		post("/unregister", `{"clientID":""}`, a.basic)
		post("/unregister", `{"clientID":"somebody"}`, a.basic)
		post("/unregister", a.body(), a.basic)
	})
}

func TestConformance10LoginGivesAToken(t *testing.T) {
	conform(t, 10, brief, func(t testing.TB) {
		a := registering(t)
		p := dialAs(t, shared.url, a)
		j := newJoin(newID())
		p.join(j)
		p.awaitMember(j.Call, j.Session)
		login := func() string {
			m := expect(t, http.StatusOK, ask(t, http.MethodPost, shared.url+"/login", a.body(), nobody))
			if len(m["bearerToken"]) != 32 {
				t.Fatalf("bearerToken is %q", m["bearerToken"])
			}
			return m["bearerToken"]
		}
		works := func(token string) bool {
			calls := ask(t, http.MethodGet, shared.url+"/calls/"+j.Call+"/sessions", "", bearer(token)).status == http.StatusOK
			return opens(t, bearer(token)) && calls
		}
		first := login()
		if !works(first) {
			t.Error("the token does not work")
		}
		second := login()
		if first == second || !works(second) || works(first) {
			t.Error("after a second login the first token works, or the second does not")
		}
	})
}

// opens tells whether /ws lets somebody in.
func opens(t testing.TB, auth func(*http.Request)) bool {
	t.Helper()
	r, err := upgrade(shared.url, auth, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r.status == http.StatusSwitchingProtocols
}

func TestConformance11ClientsUnregisterThemselvesOnly(t *testing.T) {
	conform(t, 11, brief, func(t testing.TB) {
		a, b := registering(t), registering(t)
		if m := expect(t, http.StatusForbidden, ask(t, http.MethodPost, shared.url+"/unregister", a.body(), b.basic)); m["error"] == "" {
			t.Error("no error")
		}
		if !opens(t, a.basic) {
			t.Error("another client could unregister it")
		}
		expect(t, http.StatusOK, ask(t, http.MethodPost, shared.url+"/unregister", a.body(), a.basic))
		if opens(t, a.basic) {
			t.Error("the key of an unregistered client works")
		}
		t.Log("the half with the admin secret does not apply: Sallyport has none")
	})
}

func TestConformance12SessionsAreShownToTheirClientOnly(t *testing.T) {
	conform(t, 12, brief, func(t testing.TB) {
		a, b := registering(t), registering(t)
		p := dialAs(t, shared.url, a)
		j := newJoin(newID())
		j.AV1, j.DCSet = true, false
		p.join(j)
		p.awaitMember(j.Call, j.Session)
		// b has a call of its own, so that its group exists.
		other := dialAs(t, shared.url, b)
		foreign := newJoin(newID())
		other.join(foreign)
		other.awaitMember(foreign.Call, foreign.Session)

		type shown struct {
			GroupID, CallID, UserID, SessionID string
			Props                              map[string]any
		}
		check := func(got shown, body string) {
			if got.GroupID != a.id || got.CallID != j.Call || got.UserID != j.User || got.SessionID != j.Session ||
				got.Props["channelID"] != j.Channel || got.Props["av1Support"] != true || got.Props["dcSignaling"] != nil {
				t.Errorf("the session is shown as %s", body)
			}
			for _, key := range []string{`"GroupID"`, `"CallID"`, `"UserID"`, `"SessionID"`, `"Props"`, `"dcSignaling":null`} {
				if !strings.Contains(body, key) {
					t.Errorf("no %s in %s", key, body)
				}
			}
		}
		list := p.members(j.Call)
		var all []shown
		if err := json.Unmarshal([]byte(list.body), &all); err != nil || list.status != http.StatusOK || len(all) != 1 {
			t.Fatalf("got %d %s", list.status, list.body)
		}
		check(all[0], list.body)
		path := shared.url + "/calls/" + j.Call + "/sessions"
		one := ask(t, http.MethodGet, path+"/"+j.Session, "", a.basic)
		var single shown
		if err := json.Unmarshal([]byte(one.body), &single); err != nil || one.status != http.StatusOK {
			t.Fatalf("got %d %s", one.status, one.body)
		}
		check(single, one.body)

		for _, tt := range []struct {
			url    string
			auth   func(*http.Request)
			status int
		}{
			{path, b.basic, http.StatusNotFound},
			{path + "/" + j.Session, b.basic, http.StatusNotFound},
			{path, account{a.id, b.key}.basic, http.StatusUnauthorized},
			{path, nobody, http.StatusUnauthorized},
			{shared.url + "/calls/" + newID() + "/sessions", a.basic, http.StatusNotFound},
			{path + "/" + newID(), a.basic, http.StatusNotFound},
		} {
			if r := ask(t, http.MethodGet, tt.url, "", tt.auth); r.status != tt.status {
				t.Errorf("%s: got %d %s, want %d", tt.url, r.status, r.body, tt.status)
			}
		}
	})
}

func TestConformance13RegistrationsOutliveARestart(t *testing.T) {
	conform(t, 13, brief, func(t testing.TB) {
		dir := t.TempDir()
		first := startIn(t, dir, settings{})
		a := newAccount()
		must(t, a.register(first.api))
		dialAs(t, first.api, a).close()
		must(t, first.kill())
		second := startIn(t, dir, settings{})
		dialAs(t, second.api, a)
		if r, err := upgrade(second.api, account{a.id, newAccount().key}.basic, nil); err != nil || r.status == http.StatusSwitchingProtocols {
			t.Errorf("another key works too: %d, %v", r.status, err)
		}
	})
}

func TestConformance14ManyLoginsAtOnceDoNotHang(t *testing.T) {
	conform(t, 14, alone, func(t testing.TB) {
		a := shared.client
		wrong := account{a.id, newAccount().key}
		var wg sync.WaitGroup
		begun := time.Now()
		for range 24 * runtime.NumCPU() {
			for _, who := range []account{a, wrong} {
				wg.Go(func() {
					r, err := request(http.MethodPost, shared.url+"/login", who.body(), nobody)
					var m map[string]string
					switch took := time.Since(begun); {
					case err != nil:
						t.Errorf("no answer after %s: %v", took, err)
					case json.Unmarshal([]byte(r.body), &m) != nil:
						t.Errorf("answer %d %q", r.status, r.body)
					case took > 40*time.Second: // 10 s of waiting, and the hashing
						t.Errorf("an answer took %s", took)
					case who == wrong && r.status == http.StatusOK:
						t.Error("a wrong key logs in")
					}
				})
			}
		}
		wg.Wait()
		r := ask(t, http.MethodPost, shared.url+"/login", a.body(), nobody)
		if r.status != http.StatusOK {
			t.Errorf("afterwards the right key gives %d %s", r.status, r.body)
		}
		p := dial(t)
		p.send(wire.Envelope{Type: wire.TypeLeave, Session: newID()})
		p.alive()
	})
}
