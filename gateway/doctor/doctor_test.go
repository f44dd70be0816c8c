package doctor_test

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/gateway"
	"sallyport/gateway/doctor"
	"sallyport/turn"
)

// TestHealthy: everything passes at an installation without a fault, a call
// over each path included, and nothing is left of it.
func TestHealthy(t *testing.T) {
	in := install(t, setup{})
	in.mattermost.Config.SetKeepAlivesEnabled(false) // else the gateway keeps connections, as it should
	admin := standIn(t, tellsFiles(t, in.target.AdminURL, 65536))
	in.target.AdminURL = admin
	var report doctor.Report
	for range 3 { // a busy machine may be slower than the doctor is patient
		noLeak(t, func() { report = doctor.Run(t.Context(), in.target) })
		if !slices.ContainsFunc(report.Checks, func(c doctor.Check) bool { return c.Status != doctor.Pass }) {
			break
		}
	}
	if len(report.Checks) != len(doctor.IDs()) || len(report.Checks) != 24 {
		t.Errorf("%d checks", len(report.Checks))
	}
	for i, c := range report.Checks {
		if c.Status != doctor.Pass || c.Fix != "" || c.ID != doctor.IDs()[i] {
			t.Errorf("%+v", c)
		}
	}
	if report.Failed() {
		t.Error("the report says that a check failed")
	}
	for id, want := range map[string]string{
		"tls.certificate": "chat.example.com, by Test Intermediate, 90 days left",
		"rtcd.version":    "v1.2.6+sallyport.0.0.0-test",
		"proxy.ping":      "HTTP/2.0",
		"turn.tls":        "a participant joined",
		"call.udp":        "heard each other via " + in.target.MediaUDP,
		"call.shared-udp": "heard each other via " + in.target.UDPAddress,
		"call.tcp":        "heard each other via " + in.target.MediaTCP,
	} {
		if got := find(t, report, id); !strings.Contains(got.Text, want) {
			t.Errorf("%s says %q, not %q", id, got.Text, want)
		}
	}
}

// TestSelfSigned: what the demo and a first try look like is a warning.
func TestSelfSigned(t *testing.T) {
	in := install(t, setup{config: func(c *gateway.Config) {
		c.TLS.Source = gateway.SourceSelfSigned
		c.TLS.CertFile, c.TLS.KeyFile = "", ""
	}})
	in.target.Only = []string{"tls.", "proxy.", "websocket.", "turn.tls", "call.turn-tls"}
	golden(t, "self-signed", in.target)
}

// A fault is one thing that is wrong with an installation.
type fault struct {
	name  string
	setup setup
	spoil func(t *testing.T, in *installation)
	only  string
}

// atOnce is how many installations are examined in part at the same time, since
// some wait for answers that do not come. Of those that are examined wholly, which
// takes calls, there is one at a time.
const atOnce = 6

// TestFaults breaks one thing at a time and compares all that is said of it.
// Without only, that is every check: a fault should not be heard from where it
// is not.
func TestFaults(t *testing.T) {
	var tests sync.WaitGroup
	defer tests.Wait()
	partly, wholly := make(chan struct{}, atOnce), make(chan struct{}, 1)
	one := func(f fault) {
		free := partly
		if f.only == "" {
			free = wholly
		}
		free <- struct{}{}
		defer func() { <-free }()
		t.Run(f.name, func(t *testing.T) {
			in := install(t, f.setup)
			if f.only != "" {
				in.target.Only = strings.Split(f.only, ",")
			} else {
				in.target.AdminURL = standIn(t, tellsFiles(t, in.admin, 65536))
			}
			if f.spoil != nil {
				f.spoil(t, in)
			}
			golden(t, f.name, in.target)
		})
	}
	for _, f := range slices.Concat(webFaults(), mediaFaults(), certificateFaults()) {
		tests.Go(func() { one(f) })
	}
}

func webFaults() []fault {
	socket := filepath.Join(os.TempDir(), fmt.Sprintf("sallyport-doctor-%d", os.Getpid()))
	return []fault{
		{name: "upstream-drained", only: "proxy.,websocket.", setup: setup{config: func(c *gateway.Config) { c.Admin.Socket = socket }},
			spoil: func(t *testing.T, in *installation) { drain(t, socket, in.mattermost.URL) }},
		{name: "upstream-down", spoil: func(_ *testing.T, in *installation) { in.mattermost.Close() }},
		{name: "upstream-half", only: "upstream.", spoil: func(t *testing.T, in *installation) {
			in.target.Upstream = append(in.target.Upstream, "http://"+closedPort(t))
		}},
		{name: "upstream-not-mattermost", only: "upstream.,proxy.", setup: setup{application: text("<html>welcome</html>")}},
		{name: "upstream-redirects", only: "upstream.,proxy.", setup: setup{
			application: http.RedirectHandler("https://chat.example.com/", http.StatusFound)}},
		{name: "upstream-speaks-tls", only: "upstream.", spoil: func(t *testing.T, in *installation) {
			in.target.Upstream = []string{strings.Replace(secure(t).URL, "https://", "http://", 1)}
		}},
		{name: "upstream-speaks-no-tls", only: "upstream.", spoil: func(_ *testing.T, in *installation) {
			in.target.Upstream = []string{strings.Replace(in.mattermost.URL, "http://", "https://", 1)}
		}},
		{name: "upstream-untrusted", only: "upstream.", spoil: func(t *testing.T, in *installation) {
			in.target.Upstream = []string{secure(t).URL}
		}},
		{name: "upstream-other-name", only: "upstream.", spoil: func(t *testing.T, in *installation) {
			s := secure(t)
			in.target.UpstreamRoots, in.target.UpstreamName = x509.NewCertPool(), "mattermost.internal"
			in.target.UpstreamRoots.AddCert(s.Certificate())
			in.target.Upstream = []string{s.URL}
		}},
		{name: "upstream-no-socket", only: "upstream.", spoil: func(_ *testing.T, in *installation) {
			in.target.Upstream = []string{"unix:/nowhere/http.sock"}
		}},
		{name: "upstream-unhealthy", only: "upstream.,proxy.", setup: setup{
			application: mattermostWithout("/api/v4/system/ping", text(`{"status":"UNHEALTHY"}`))}},
		{name: "websocket-forbidden", setup: setup{
			application: mattermostWithout("/api/v4/websocket", status(http.StatusForbidden))}},
		{name: "websocket-bad-request", only: "websocket.", setup: setup{
			application: mattermostWithout("/api/v4/websocket", status(http.StatusBadRequest))}},
		{name: "websocket-not-found", only: "websocket.", setup: setup{
			application: mattermostWithout("/api/v4/websocket", status(http.StatusNotFound))}},
		{name: "site-url-elsewhere", only: "mattermost.", setup: setup{
			application: mattermostWithout(configPath, text(`{"SiteURL":"http://mattermost.internal:8065/"}`))}},
		{name: "site-url-none", only: "mattermost.", setup: setup{
			application: mattermostWithout(configPath, text(`{"SiteURL":"","Version":"11.0.0"}`))}},
		{name: "site-url-no-url", only: "mattermost.", setup: setup{
			application: mattermostWithout(configPath, text(`{"SiteURL":"chat.example.com"}`))}},
		{name: "site-url-with-a-path", only: "mattermost.", spoil: func(_ *testing.T, in *installation) { in.target.Port = 443 }, setup: setup{
			application: mattermostWithout(configPath, text(`{"SiteURL":"https://Chat.example.com:443/chat"}`))}},
		{name: "site-url-not-told", only: "mattermost.", setup: setup{
			application: mattermostWithout(configPath, text(`{"Version":"11.0.0"}`))}},
		{name: "site-url-forbidden", only: "mattermost.", setup: setup{
			application: mattermostWithout(configPath, status(http.StatusUnauthorized))}},
		{name: "site-url-unasked", only: "mattermost.", spoil: func(_ *testing.T, in *installation) { in.target.Upstream = nil }},
		{name: "no-redirect", only: "http.redirect", spoil: func(_ *testing.T, in *installation) { in.target.HTTPAddress = "" }},
		{name: "other-web-server", only: "http.redirect", spoil: func(t *testing.T, in *installation) {
			in.target.HTTPAddress = strings.TrimPrefix(standIn(t, text("It works!")), "http://")
		}},
		{name: "other-redirect", only: "http.redirect", spoil: func(t *testing.T, in *installation) {
			in.target.HTTPAddress = strings.TrimPrefix(standIn(t, http.RedirectHandler("https://www.example.com/", http.StatusMovedPermanently)), "http://")
		}},
		{name: "not-running", spoil: func(_ *testing.T, in *installation) {
			in.stop()
			in.target.AdminURL = in.admin
		}, only: "config.,process.,dns.,tls.,http.,upstream.,proxy.,websocket.,turn.,rtcd.,call.,host.udp,host.clock"},
		{name: "draining", only: "process.", spoil: func(t *testing.T, in *installation) {
			in.target.AdminURL = standIn(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				http.Error(w, "draining", http.StatusServiceUnavailable)
			}))
		}},
		{name: "dns-unknown", only: "dns.", spoil: func(_ *testing.T, in *installation) { in.target.LookupHost = lookup() }},
		{name: "dns-one-silent", only: "dns.", spoil: func(_ *testing.T, in *installation) {
			in.target.LookupHost = lookup("127.0.0.1", "127.0.0.2")
		}},
		{name: "dns-all-silent", only: "dns.", spoil: func(t *testing.T, in *installation) {
			in.target.HTTPSAddress = domain + ":443"
			in.target.LookupHost = lookup("127.0.0.2")
		}},
		{name: "dns-elsewhere", only: "dns.", spoil: func(_ *testing.T, in *installation) { in.target.LookupHost = lookup("127.0.0.3") }},
		{name: "dns-not-needed", only: "dns.", spoil: func(_ *testing.T, in *installation) { in.target.Host = "localhost" }},
	}
}

// secure is a Mattermost that speaks TLS.
func secure(t *testing.T) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(goodMattermost())
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// TestUpstreamsOfAllKinds: over TLS with a CA of its own, and at a Unix socket.
func TestUpstreamsOfAllKinds(t *testing.T) {
	s := secure(t)
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	local := &http.Server{Handler: goodMattermost()}
	go func() { _ = local.Serve(ln) }()
	t.Cleanup(func() { _ = local.Close() })
	target := doctor.Target{
		Host: domain, Upstream: []string{s.URL, "unix:" + path}, UpstreamRoots: x509.NewCertPool(), UpstreamName: "example.com",
		Only: []string{"upstream."},
	}
	target.UpstreamRoots.AddCert(s.Certificate())
	if c := find(t, doctor.Run(t.Context(), target), "upstream.ping"); c.Status != doctor.Pass {
		t.Errorf("%+v", c)
	}
}

// TestSiteURL: ways to write the same place.
func TestSiteURL(t *testing.T) {
	for _, c := range []struct {
		site, path string
		port       uint16
	}{
		{"https://chat.example.com", "", 443},
		{"https://chat.example.com/", "", 0},
		{"HTTPS://Chat.Example.com:443", "", 443},
		{"https://chat.example.com:8443", "", 8443},
		{"https://chat.example.com/mm/", "/mm", 443},
	} {
		mm := standIn(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.RequestURI != c.path+configPath+"?format=old" {
				t.Errorf("asked for %s", r.RequestURI)
			}
			text(`{"SiteURL":"`+c.site+`"}`)(w, r)
		}))
		target := doctor.Target{Host: domain, Port: c.port, SitePath: c.path, Upstream: []string{"http://" + closedPort(t), mm}, Only: []string{"mattermost."}}
		if got := doctor.Run(t.Context(), target).Checks[0]; got.Status != doctor.Pass || got.Text != "SiteURL is "+c.site {
			t.Errorf("%+v", got)
		}
	}
}

func mediaFaults() []fault {
	noClient := func(_ *testing.T, in *installation) { in.target.ClientID = "" }
	return []fault{
		{name: "turn-wrong-secret", spoil: func(_ *testing.T, in *installation) {
			in.target.TURNUsername, in.target.TURNPassword = turn.Credentials([]byte("not the server's secret"), "doctor", time.Now().Add(time.Hour))
		}},
		{name: "turn-no-secret", only: "turn.,call.turn-tls", spoil: func(_ *testing.T, in *installation) { in.target.TURNUsername = "" }},
		{name: "turn-off", only: "turn.,call.turn-tls", setup: setup{config: func(c *gateway.Config) { c.TURN.Enabled = false }}},
		{name: "turn-udp-blocked", spoil: func(t *testing.T, in *installation) { in.target.UDPAddress = silentPort(t) }},
		{name: "turn-udp-nobody", only: "turn.udp", spoil: func(t *testing.T, in *installation) { in.target.UDPAddress = closedPort(t) }},
		{name: "turn-udp-off", only: "turn.udp", spoil: func(_ *testing.T, in *installation) { in.target.UDPAddress = "" }},
		{name: "turn-full", only: "turn.tls", setup: setup{config: func(c *gateway.Config) { c.TURN.UserAllocations, c.TURN.MaxAllocations = 1, 1 }},
			spoil: func(t *testing.T, in *installation) { occupy(t, in) }},
		{name: "turn-not-to-sfu", only: "turn.udp,turn.tls", spoil: noClient,
			setup: setup{config: func(c *gateway.Config) { c.TURN.RelayTo = []string{"127.0.0.9:8443"} }}},
		{name: "turn-not-to-sfu-with-client", only: "turn.tls,call.turn-tls",
			setup: setup{config: func(c *gateway.Config) { c.TURN.RelayTo = []string{"127.0.0.9:8443"} }}},
		{name: "turn-open-relay", only: "turn.closed-relay", spoil: func(_ *testing.T, in *installation) {
			in.target.MediaUDP, in.target.RelayTo = "198.51.100.1:8443", nil // it was to be the SFU alone
		}, setup: setup{config: func(c *gateway.Config) { c.TURN.RelayTo = []string{"sfu", "127.0.0.1:9"} }}},
		{name: "turn-to-others-too", only: "turn.closed-relay", spoil: func(_ *testing.T, in *installation) {
			in.target.MediaUDP = "198.51.100.1:8443"
		}, setup: setup{config: func(c *gateway.Config) { c.TURN.RelayTo = []string{"sfu", "127.0.0.1:8443"} }}},
		{name: "turn-to-everybody", only: "turn.closed-relay", spoil: func(_ *testing.T, in *installation) {
			in.target.RelayTo = []string{"0.0.0.0/0:8443"}
		}},
		{name: "api-down", spoil: func(t *testing.T, in *installation) { in.target.APIURL = "http://" + closedPort(t) }},
		{name: "api-off", only: "rtcd.,call.", spoil: func(_ *testing.T, in *installation) { in.target.APIURL = "" }},
		{name: "api-old", only: "rtcd.", spoil: func(t *testing.T, in *installation) {
			in.target.APIURL = standIn(t, text(`{"buildVersion":"0.17.0"}`))
		}},
		{name: "api-older-than-browsers", only: "rtcd.", spoil: func(t *testing.T, in *installation) {
			in.target.APIURL = standIn(t, text(`{"buildVersion":"v1.2.4"}`))
		}},
		{name: "api-development", only: "rtcd.", spoil: func(t *testing.T, in *installation) {
			in.target.APIURL = standIn(t, text(`{"buildVersion":"dev-abc"}`))
		}},
		{name: "api-not-rtcd", only: "rtcd.,call.udp", spoil: func(t *testing.T, in *installation) {
			in.target.APIURL = standIn(t, text("<html>"))
		}},
		{name: "client-wrong-key", spoil: func(_ *testing.T, in *installation) { in.target.ClientKey = strings.Repeat("x", 40) }},
		{name: "client-unknown", only: "call.", spoil: noClient},
		{name: "udp-off", only: "call.shared-udp", spoil: func(_ *testing.T, in *installation) { in.target.UDPAddress = "" },
			setup: setup{config: func(c *gateway.Config) { c.Listen.UDP = "" }}},
		{name: "tcp-off", only: "call.tcp", spoil: func(_ *testing.T, in *installation) { in.target.MediaTCP = "" },
			setup: setup{config: func(c *gateway.Config) { c.SFU.TCP = "" }}},
		{name: "media-unreachable", only: "call.udp,call.shared-udp,call.tcp",
			setup: setup{config: func(c *gateway.Config) { c.SFU.Advertise = []string{"127.0.0.2/127.0.0.1"} }},
			spoil: func(t *testing.T, in *installation) { in.target.APIURL = hideCandidates(t, in.target.APIURL) }},
	}
}

func certificateFaults() []fault {
	issued := func(edit func(*x509.Certificate)) setup {
		return setup{files: func(a *authority) certificate { return a.issue(edit) }}
	}
	const only = "tls.,proxy.ping,turn.tls"
	return []fault{
		{name: "certificate-expired", only: only, setup: issued(func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2024, 3, 31, 0, 0, 0, 0, time.UTC)
		})},
		{name: "certificate-of-the-future", only: "tls.certificate", setup: issued(func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Date(2124, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2124, 3, 31, 0, 0, 0, 0, time.UTC)
		})},
		{name: "certificate-other-name", only: only, setup: issued(func(c *x509.Certificate) {
			c.DNSNames = []string{"example.com", "www.example.com"}
		})},
		{name: "certificate-no-name", only: "tls.certificate", setup: issued(func(c *x509.Certificate) { c.DNSNames = nil })},
		{name: "certificate-incomplete", only: only, setup: setup{files: func(a *authority) certificate { return a.issueWith(nil) }}},
		{name: "certificate-private", only: only, spoil: func(_ *testing.T, in *installation) { in.target.Roots = x509.NewCertPool() },
			setup: setup{files: func(a *authority) certificate { return a.issueWith(nil, a.intermediate, a.root) }}},
		{name: "certificate-not-for-servers", only: "tls.certificate", setup: issued(func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		})},
		{name: "tls-1.3-forgotten", only: "tls.versions", spoil: func(_ *testing.T, in *installation) { in.target.TLS13Only = true }},
		{name: "tls-1.3-only", only: "tls.versions", spoil: func(_ *testing.T, in *installation) { in.target.TLS13Only = false },
			setup: setup{config: func(c *gateway.Config) { c.TLS.MinVersion = "1.3" }}},
	}
}

// TestNotice: how long before its end a certificate is complained about.
func TestNotice(t *testing.T) {
	for _, test := range []struct {
		life, left time.Duration
		want       doctor.Status
	}{
		{90 * day, 30 * day, doctor.Pass}, {90 * day, 17 * day, doctor.Warn},
		{6 * day, 3 * day, doctor.Pass}, {6 * day, 1 * day, doctor.Warn},
		{398 * day, 22 * day, doctor.Pass}, {398 * day, 20 * day, doctor.Warn},
	} {
		a := newAuthority(t)
		cert := a.issue(func(c *x509.Certificate) {
			c.NotAfter = time.Now().Add(test.left + time.Minute)
			c.NotBefore = c.NotAfter.Add(-test.life)
		})
		target := doctor.Target{Host: domain, Roots: a.pool(), HTTPSAddress: startSite(t, site{cert: cert.pair(t)}), Only: []string{"tls.certificate"}}
		got := doctor.Run(t.Context(), target).Checks[0]
		if got.Status != test.want {
			t.Errorf("%v of %v left: %+v", test.left, test.life, got)
		}
	}
}

const day = 24 * time.Hour

// TestMinimum13 is what tls.min_version: "1.3" means.
func TestMinimum13(t *testing.T) {
	in := install(t, setup{config: func(c *gateway.Config) { c.TLS.MinVersion = "1.3" }})
	in.target.Only = []string{"tls.versions"}
	if got := doctor.Run(t.Context(), in.target).Checks[0]; got.Status != doctor.Pass {
		t.Errorf("%+v", got)
	}
}

// TestEndsWithItsContext: nobody waits for checks that hang.
func TestEndsWithItsContext(t *testing.T) {
	udp := silentPort(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	began := time.Now()
	port := netip.MustParseAddrPort(udp).Port()
	report := doctor.Run(ctx, doctor.Target{
		Host: domain, Port: port, HTTPSAddress: udp, UDPAddress: udp, HTTPAddress: udp, MediaUDP: udp, MediaTCP: udp,
		APIURL: "http://" + udp, AdminURL: "http://" + udp, ClientID: "x", Upstream: []string{"http://" + udp}, TURNUsername: "x",
		LookupHost: lookup("127.0.0.1"),
	})
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("took %v", took)
	}
	if !report.Failed() {
		t.Error("nothing failed")
	}
}

func find(t *testing.T, r doctor.Report, id string) doctor.Check {
	t.Helper()
	for _, c := range r.Checks {
		if c.ID == id {
			return c
		}
	}
	t.Fatalf("no check %s", id)
	return doctor.Check{}
}
