package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport/gateway"
	"sallyport/gateway/admin"
	"sallyport/gateway/doctor"
)

// TestDoctorOfDemo examines a running demo: nothing fails, and what the demo
// has is looked at.
func TestDoctorOfDemo(t *testing.T) {
	d, err := newDemo(freePorts(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	f := doctorFlags{demo: true, admin: d.gateway.Addrs().Admin}
	target, ok := f.target()
	if !ok {
		t.Fatal("no target")
	}
	var passed []string
	for _, c := range doctor.Run(t.Context(), target).Checks {
		if c.Status == doctor.Fail {
			t.Errorf("%+v", c)
		}
		if c.Status == doctor.Pass && !strings.HasPrefix(c.ID, "host.") { // which is the machine's business
			passed = append(passed, c.ID)
		}
	}
	want := []string{
		"process.ready", "tls.versions", "http.h2", "http.extended-connect", "upstream.ping", "proxy.ping",
		"websocket.upgrade", "mattermost.site-url", "turn.udp", "turn.tcp", "turn.tls", "turn.closed-relay", "rtcd.version",
	}
	if diff := cmp.Diff(want, passed); diff != "" {
		t.Errorf("passed: -want +got:\n%s", diff)
	}
}

// TestDoctorTarget: where a configuration and the flags place everything.
func TestDoctorTarget(t *testing.T) {
	c := gateway.Default()
	c.Domain = "chat.example.com"
	c.SFU.API.Listen, c.Admin.Listen = ":8045", "0.0.0.0:9443"
	want := doctor.Target{
		Host: "chat.example.com", Port: 443, HTTPSAddress: "chat.example.com:443", HTTPAddress: "chat.example.com:80",
		UDPAddress: "chat.example.com:443", MediaUDP: ":8443", MediaTCP: ":8443", APIURL: "http://127.0.0.1:8045",
		AdminURL: "http://127.0.0.1:9443", Upstream: []string{"http://127.0.0.1:8065"}, RelayTo: []string{"sfu"},
		PingPath: "/api/v4/system/ping", WebSocketPath: "/api/v4/websocket",
	}
	same := func(name string, f doctorFlags) {
		t.Helper()
		got := f.targetOf(c)
		if diff := cmp.Diff(want, got, cmp.FilterPath(func(p cmp.Path) bool {
			return slices.Contains([]string{"LookupHost", "Roots"}, p.Last().String())
		}, cmp.Ignore())); diff != "" {
			t.Errorf("%s: -want +got:\n%s", name, diff)
		}
	}
	same("defaults", doctorFlags{})

	c.SFU.Advertise = []string{"192.0.2.7/10.0.0.7"}
	want.HTTPSAddress, want.HTTPAddress, want.UDPAddress = "10.0.0.7:10443", "10.0.0.7:80", "10.0.0.7:10443"
	want.MediaUDP, want.AdminURL = "192.0.2.7:8443", "http://10.0.0.7:9443"
	same("-address and -admin", doctorFlags{address: "10.0.0.7:10443", admin: "10.0.0.7:9443"})

	c.Proxy.HealthPath, want.PingPath, want.WebSocketPath = "/mm/api/v4/system/ping", "/mm/api/v4/system/ping", "/mm/api/v4/websocket"
	c.Proxy.SitePath, want.SitePath = "/mm", "/mm"
	c.SFU.Mode, c.Listen.HTTP, c.Listen.UDP, c.TLS.MinVersion = gateway.ModeOff, "", "", "1.3"
	want.APIURL, want.MediaUDP, want.MediaTCP, want.HTTPAddress, want.UDPAddress, want.TLS13Only = "", "", "", "", "", true
	same("off", doctorFlags{address: "10.0.0.7:10443", admin: "10.0.0.7:9443"})
}

// TestLocateMedia: the running process knows best where it is bound, but not
// that what is off should be examined.
func TestLocateMedia(t *testing.T) {
	running := admin.Status{Listeners: []admin.Listener{{Key: "listen.udp", Address: "x"}, {Key: "sfu.udp", Address: "10.0.0.7:8443"}}}
	on, off := doctor.Target{MediaUDP: ":8443"}, doctor.Target{}
	locateMedia(&on, running)
	locateMedia(&off, running)
	if on.MediaUDP != "10.0.0.7:8443" || off.MediaUDP != "" {
		t.Errorf("%q %q", on.MediaUDP, off.MediaUDP)
	}
}

// TestDoctorSecrets: one bad file does not hide what another is good for, and
// no secret is kept.
func TestDoctorSecrets(t *testing.T) {
	dir := t.TempDir()
	name := func(n, content string) string {
		n = filepath.Join(dir, n)
		if err := os.WriteFile(n, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return n
	}
	const secret = "this is the secret of TURN"
	l := load(name("c.yaml", `
domain: chat.example.com
tls: {source: files, cert_file: c, key_file: k}
turn: {secret_file: `+name("turn", secret)+`}
sfu: {api: {clients: [{id: mattermost, key_file: `+name("key", "short")+`}]}}
`), nil)
	if len(l.faults) > 0 {
		t.Fatal(complaints(l.faults))
	}
	var target doctor.Target
	addSecrets(&target, l.Config)
	if !strings.HasSuffix(target.TURNUsername, ":doctor") || target.TURNPassword == "" || strings.Contains(target.TURNPassword, secret) {
		t.Errorf("credentials %q", target.TURNUsername)
	}
	if target.ClientID != "" || target.ClientKey != "" {
		t.Errorf("client %q", target.ClientID)
	}
	want := []doctor.SecretFile{
		{Key: "turn.secret_file", Name: dir + "/turn"},
		{Key: "sfu.api.clients[0].key_file", Name: dir + "/key", Problem: dir + "/key holds 5 bytes: a secret needs at least 32"},
		{Key: "tls.key_file", Name: "k"},
	}
	if diff := cmp.Diff(want, target.Secrets); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if doctorCredentialTTL > time.Hour {
		t.Error("credentials live too long")
	}
}
