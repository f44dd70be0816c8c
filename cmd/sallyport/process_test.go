package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// TestSIGTERMWaitsForTheCall: who is in a call stays in it, nobody else gets in,
// and its end is the process's.
func TestSIGTERMWaitsForTheCall(t *testing.T) {
	t.Parallel()
	p := startProcess(t, "http://"+startMattermost(t, "one").address)
	a, b, join := p.call()
	for _, url := range []string{"http://" + p.Admin + "/readyz", "http://" + p.API + "/system"} {
		if got := p.get(url); got != http.StatusOK {
			t.Errorf("%s: %d before the signal", url, got)
		}
	}
	p.signal(syscall.SIGTERM)
	p.says(`"msg":"draining"`)
	for _, url := range []string{"http://" + p.Admin + "/readyz", "http://" + p.API + "/system"} {
		if got := p.get(url); got != http.StatusServiceUnavailable {
			t.Errorf("%s: %d while draining, want 503", url, got)
		}
	}
	if _, err := join(); err == nil {
		t.Error("somebody joined while draining")
	}
	p.hears(b, a)
	p.must(b.Unmute(t.Context())) // all that a call does goes on
	p.hears(a, b)
	p.lives()
	p.must(a.Leave(t.Context()))
	p.must(b.Leave(t.Context()))
	p.ends(0)
}

// TestSecondSIGTERMDoesNotWait: neither for calls nor for WebSockets.
func TestSecondSIGTERMDoesNotWait(t *testing.T) {
	t.Parallel()
	mm := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if conn, err := websocket.Accept(w, r, nil); err == nil {
			_, _, _ = conn.Read(r.Context())
		}
	})}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = mm.Serve(ln) }()
	t.Cleanup(func() { _ = mm.Close() })
	p := startProcess(t, "http://"+ln.Addr().String())
	a, _, _ := p.call()
	conn, _, err := websocket.Dial(t.Context(), "wss://"+p.HTTPS+"/api/v4/websocket", &websocket.DialOptions{HTTPClient: visitor("http/1.1")})
	p.must(err)
	defer func() { _ = conn.CloseNow() }()
	p.signal(syscall.SIGTERM)
	p.says(`"msg":"draining"`)
	began := time.Now()
	p.signal(syscall.SIGTERM)
	p.says(`"msg":"told to stop at once"`)
	p.ends(0)
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %s", took)
	}
	<-a.Done()
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("a participant notices after %s", took)
	}
}

// TestSIGHUP: a good file is applied as far as that goes, a bad one not at all.
func TestSIGHUP(t *testing.T) {
	t.Parallel()
	one, two := startMattermost(t, "one"), startMattermost(t, "two")
	p := startProcess(t, "http://"+one.address)
	a, b, _ := p.call()
	c := visitor("h2")
	defer c.CloseIdleConnections()
	p.visits(c, "one GET ")

	good := strings.Replace(p.configuration("http://"+two.address), "level: info", "level: debug", 1)
	p.configure(good)
	p.signal(syscall.SIGHUP)
	p.says(fmt.Sprintf(`"msg":"configuration reloaded","applied":"upstream: [http://%s] -> [http://%s]; log.level: info -> debug"`, one.address, two.address))
	p.visits(c, "two GET ")
	p.says(`"level":"DEBUG"`)

	p.configure(strings.Replace(good, `https: "127.0.0.1:0"`, `https: "127.0.0.1:1"`, 1))
	p.signal(syscall.SIGHUP)
	p.says(`"msg":"restart needed","for":"listen.https: 127.0.0.1:0 -> 127.0.0.1:1"`)
	p.visits(c, "two GET ")

	broken := strings.Replace(p.configuration("http://"+one.address), "level: info", "level: loud", 1) + "listn: {}\n"
	p.configure(broken)
	p.signal(syscall.SIGHUP)
	lines := strings.Count(broken, "\n")
	p.says(fmt.Sprintf(`"msg":"reload refused","err":"%s:%d:1: unknown key \"listn\" (did you mean \"listen\"?)"`, p.file, lines))
	p.says(fmt.Sprintf(`%s:%d:14: log.level: \"loud\" is not one of`, p.file, lines-1))
	p.visits(c, "two GET ") // although the rest of it was good

	p.must(os.Remove(p.file))
	p.signal(syscall.SIGHUP)
	p.says("no such file")
	p.visits(c, "two GET ")
	p.hears(b, a) // none of which a call notices
	p.lives()
}

// visits wants an answer of Mattermost's.
func (p *process) visits(c *http.Client, want string) {
	p.t.Helper()
	if got, err := fetch(c, "https://"+p.HTTPS, ""); err != nil || got != want {
		p.t.Errorf("a visitor sees %q, %v; want %q", got, err, want)
	}
}

// visitor is a browser that trusts everybody.
func visitor(protocol string) *http.Client {
	tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ServerName: "localhost"}, Protocols: new(http.Protocols)}
	tr.Protocols.SetHTTP1(protocol == "http/1.1")
	tr.Protocols.SetHTTP2(protocol == "h2")
	return &http.Client{Transport: tr, Timeout: patience}
}

// fetch gets a page, or posts body if there is one.
func fetch(c *http.Client, url, body string) (string, error) {
	ask := func() (*http.Response, error) { return c.Get(url) }
	if body != "" {
		ask = func() (*http.Response, error) { return c.Post(url, "text/plain", strings.NewReader(body)) }
	}
	response, err := ask()
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %s", response.Status)
	}
	return string(answer), err
}

// TestMattermostRestarts: it is away for five seconds, and nobody notices more
// than that it is slow.
func TestMattermostRestarts(t *testing.T) {
	t.Parallel()
	const away = 5 * time.Second
	mm := startMattermost(t, "mm")
	p := startProcess(t, "http://"+mm.address)
	stop := make(chan struct{})
	var all sync.WaitGroup
	var answers, waited atomic.Int64
	reader := func(protocol string) {
		c := visitor(protocol)
		defer c.CloseIdleConnections()
		for {
			began := time.Now()
			if got, err := fetch(c, "https://"+p.HTTPS, ""); err != nil || got != "mm GET " {
				t.Errorf("a visitor over %s got %q, %v, after %s", protocol, got, err, time.Since(began))
				return
			}
			answers.Add(1)
			if time.Since(began) > away/2 {
				waited.Add(1)
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	}
	for i := range 8 {
		all.Go(func() { reader([]string{"h2", "http/1.1"}[i%2]) })
	}
	for end := time.Now().Add(patience); answers.Load() < 100; time.Sleep(time.Millisecond) {
		if time.Now().After(end) || t.Failed() {
			t.Fatal("nothing is answered")
		}
	}
	mm.stop()
	back := time.NewTimer(away)
	for range 4 { // what cannot be sent twice was not sent yet
		all.Go(func() {
			c := visitor("h2")
			defer c.CloseIdleConnections()
			if got, err := fetch(c, "https://"+p.HTTPS, "news"); err != nil || got != "mm POST news" {
				t.Errorf("who posted while Mattermost was away got %q, %v", got, err)
			}
		})
	}
	<-back.C
	mm.start()
	before := answers.Load()
	for end := time.Now().Add(patience); answers.Load() < before+100 && time.Now().Before(end) && !t.Failed(); {
		time.Sleep(time.Millisecond)
	}
	close(stop)
	all.Wait()
	if waited.Load() < 8 {
		t.Errorf("%d of 8 visitors had to wait", waited.Load())
	}
}

// TestPortTaken: the error names the key and says what to do.
func TestPortTaken(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	p := newProcess(t, "http://127.0.0.1:9")
	p.configure(strings.Replace(p.configuration("http://127.0.0.1:9"), `https: "127.0.0.1:0"`, fmt.Sprintf("https: %q", taken.Addr()), 1))
	p.serve()
	p.ends(1)
	for _, want := range []string{"sallyport: listen.https: ", taken.Addr().String(), "address already in use", "another process has this port", "change listen.https"} {
		if !strings.Contains(p.log.String(), want) {
			t.Errorf("the error does not say %q: %s", want, p.log)
		}
	}
}
