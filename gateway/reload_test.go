package gateway

import (
	"encoding/pem"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport/sfu/rtcd"
)

func TestChangedKeysAreNamedAsInTheFile(t *testing.T) {
	if keys := keysOf(changes(Default(), Default())); len(keys) != 0 {
		t.Errorf("nothing changed, but %v", keys)
	}
	for want, edit := range map[string]func(*Config){
		"domain":                 func(c *Config) { c.Domain = "x" },
		"upstream":               func(c *Config) { c.Upstream = []string{"http://a", "http://b"} },
		"listen.udp":             func(c *Config) { c.Listen.UDP = "" },
		"tls.acme.email":         func(c *Config) { c.TLS.ACME.Email = "a@example.com" },
		"proxy.trusted_proxies":  func(c *Config) { c.Proxy.TrustedProxies = []string{"10.0.0.0/8"} },
		"sfu.mode":               func(c *Config) { c.SFU.Mode = "off" }, // squashed: not sfu.config.mode
		"sfu.api.clients":        func(c *Config) { c.SFU.API.Clients = []rtcd.Client{{ID: "a"}} },
		"drain.websocket_spread": func(c *Config) { c.Drain.WebsocketSpread++ },
		"":                       func(c *Config) { c.Proxy.TrustedProxies = nil }, // empty is empty
	} {
		c := Default()
		edit(&c)
		if got := strings.Join(keysOf(changes(Default(), c)), " "); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func keysOf(changes []Change) (keys []string) {
	for _, c := range changes {
		keys = append(keys, c.Key)
	}
	return keys
}

// Every hot key must exist and be taken over by merged, or a reload would claim
// what it did not do.
func TestHotKeysAreMerged(t *testing.T) {
	old, next := Default(), Default()
	next.Upstream = []string{"http://a"}
	next.TLS.CertFile, next.TLS.KeyFile, next.TLS.Names, next.TLS.HSTS = "c", "k", []string{"n"}, 1
	next.TLS.MinVersion, next.TLS.ClientAuth.Mode = "1.3", "required"
	next.Proxy = Proxy{
		TrustedProxies: []string{"::1"}, IdleTimeout: 1, MaxBody: 1, Hold: 1, HealthPath: "/", UpstreamCAFile: "ca", UpstreamServerName: "name",
		MaxURL: 1, SitePath: "/a", MaxHeader: 2 * maxHeaderBytes, Robots: noIndex,
	}
	next.Limits = Limits{Connections: 1, Requests: 1, RequestsBurst: 1, Logins: 1, LoginsBurst: 1, Exempt: []string{"::1"}}
	next.Access = Access{
		Rules: []AccessRule{{Path: "/a"}}, PreauthSecretFile: "s", PreviousPreauthSecretFile: "p", PreauthExempt: []string{"::1"},
	}
	next.TURN.SecretFile, next.TURN.PreviousSecretFile = "s", "p"
	next.SFU.API.Clients = []rtcd.Client{{ID: "a"}}
	next.Log.Level, next.Log.Format = "debug", "text"
	next.Log.Access, next.Log.Sample = accessAll, 2
	next.Drain = Drain{Timeout: 1, WebsocketSpread: 1}
	next.Reload.Watch = true
	g := &Gateway{cfg: old, longestHeader: 2 * maxHeaderBytes, opts: Options{Level: new(slog.LevelVar), TextLog: new(atomic.Bool)}}
	if rest := keysOf(changes(g.merged(next), next)); len(rest) != 0 {
		t.Errorf("not merged: %v", rest)
	}
	for _, key := range keysOf(changes(old, next)) {
		if !g.isHot(key) {
			t.Errorf("%s is merged but not hot", key)
		}
	}
	for _, hot := range hotKeys {
		hit := false
		for _, key := range keysOf(changes(old, next)) {
			hit = hit || key == hot || strings.HasPrefix(key, hot+".")
		}
		if !hit {
			t.Errorf("%s is hot but not merged", hot)
		}
	}
	next.Proxy.MaxHeader++
	if rest := keysOf(changes(g.merged(next), next)); !cmp.Equal(rest, []string{"proxy.max_header"}) {
		t.Errorf("longer than what net/http reads: %v", rest)
	}
	if c := g.sorted([]Change{{Key: "proxy.max_header"}}, next); len(c.Restart) != 1 || len(c.Applied) != 0 {
		t.Errorf("longer than what net/http reads: %v", c)
	}
	next.Proxy.MaxHeader--
	g.opts.Level, g.opts.TextLog = nil, nil
	if rest := keysOf(changes(g.merged(next), next)); !cmp.Equal(rest, []string{"log.level", "log.format"}) || g.isHot("log.level") || g.isHot("log.format") {
		t.Errorf("with nothing to set: %v", rest)
	}
}

func TestReload(t *testing.T) {
	g := startGateway(t, nil)
	other := startMattermost(t)
	c := client(nil, "h2")
	defer c.CloseIdleConnections()

	next := g.config()
	next.Upstream = []string{other.url()}
	next.TLS.HSTS = time.Hour // which a self-signed certificate keeps us from sending
	next.Proxy.MaxBody = 4
	next.Domain = "other.example.com"
	next.Listen.HTTP = ""
	now := g.config()
	got, err := g.Reload(next)
	if err != nil {
		t.Fatal(err)
	}
	restart := []Change{
		{Key: "domain", Old: "localhost", New: "other.example.com"},
		{Key: "listen.http", Old: now.Listen.HTTP, New: `""`},
	}
	if d := cmp.Diff(Changes{
		Applied: []Change{
			{Key: "upstream", Old: "[" + now.Upstream[0] + "]", New: "[" + other.url() + "]"},
			{Key: "tls.hsts", Old: "0s", New: "1h"},
			{Key: "proxy.max_body", Old: "0", New: "4"},
		},
		Restart: restart,
	}, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	for body, want := range map[string]int{"": 200, "12345": 413} {
		resp, _ := ask(t, c, request(t, http.MethodPost, "https://"+g.Addrs().HTTPS+"/plugins/mirror/", body))
		if resp.StatusCode != want {
			t.Errorf("body %q: status %d, want %d", body, resp.StatusCode, want)
		}
	}
	if ups := g.Status().Upstreams; len(ups) != 1 || ups[0].URL != other.url() {
		t.Errorf("upstreams: %+v", ups)
	}
	// What needs a restart is still said the next time.
	if got, err = g.Reload(next); err != nil || len(got.Applied) != 0 || !cmp.Equal(got.Restart, restart) {
		t.Errorf("again: %v %v", got, err)
	}
}

// A secret on a dead file server hangs the reload, and nothing else.
func TestStopWhileAReloadHangs(t *testing.T) {
	hang, hangs, release := atomic.Bool{}, make(chan struct{}, 1), make(chan struct{})
	g := startGatewayWith(t, nil, func(o *Options) {
		read := o.ReadFile
		o.ReadFile = func(name string) ([]byte, error) {
			if hang.CompareAndSwap(true, false) {
				hangs <- struct{}{}
				<-release
			}
			return read(name)
		}
	})
	next := g.config()
	hang.Store(true)
	reloaded := make(chan error, 1)
	go func() {
		_, err := g.Reload(next)
		reloaded <- err
	}()
	<-hangs
	g.Drain()
	if err := g.wait(); err != nil {
		t.Error(err)
	}
	close(release)
	if err := <-reloaded; err != nil {
		t.Error(err)
	}
}

func TestBadReloadChangesNothing(t *testing.T) {
	missing := false
	g := startGatewayWith(t, nil, func(o *Options) {
		read := o.ReadFile
		o.ReadFile = func(name string) ([]byte, error) {
			if missing {
				return nil, os.ErrNotExist
			}
			return read(name)
		}
	})
	before := g.config()
	bad := map[string]func(*Config){
		"invalid":        func(c *Config) { c.Proxy.IdleTimeout = time.Hour },
		"secret missing": func(c *Config) { c.TLS.HSTS = time.Hour; missing = true },
	}
	for name, edit := range bad {
		next := g.config()
		edit(&next)
		if got, err := g.Reload(next); err == nil || len(got.Applied)+len(got.Restart) > 0 {
			t.Errorf("%s: %v %v", name, got, err)
		} else if name == "secret missing" && !errors.Is(err, os.ErrNotExist) && !strings.Contains(err.Error(), "turn.secret_file") {
			t.Errorf("%s: error does not say what: %v", name, err)
		}
		missing = false
		if d := cmp.Diff(before, g.config()); d != "" {
			t.Errorf("%s: configuration changed:\n%s", name, d)
		}
	}
	if got := metric(g.metrics.reloads.WithLabelValues(reloadFailed)); got != 2 {
		t.Errorf("%v failed reloads counted", got)
	}
	if g.proxy.settings.Load().hsts != "" {
		t.Error("half of a bad configuration is in force")
	}
}

// A CA file with a new content is taken over by a reload, and told; one without a
// certificate is refused.
func TestReloadOfTheUpstreamCA(t *testing.T) {
	name := filepath.Join(t.TempDir(), "ca.pem")
	cert, _ := testCertificate()
	root := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]})
	write := func(content []byte) {
		t.Helper()
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(root)
	g := startGateway(t, func(c *Config) { c.Proxy.UpstreamCAFile = name })
	if got, err := g.Reload(g.config()); err != nil || len(got.Applied) != 0 {
		t.Errorf("nothing is new: %v %v", got, err)
	}
	write(append(root, root...))
	want := []Change{{Key: "proxy.upstream_ca_file", Old: name, New: name, Content: true}}
	if got, err := g.Reload(g.config()); err != nil || !cmp.Equal(got.Applied, want) {
		t.Errorf("new content: %v %v", got, err)
	}
	write([]byte("nothing"))
	if _, err := g.Reload(g.config()); err == nil || !strings.HasPrefix(err.Error(), "proxy.upstream_ca_file: ") {
		t.Errorf("no certificate in it: %v", err)
	}
}
