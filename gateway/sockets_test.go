package gateway

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestTakenPortsAreNamed(t *testing.T) {
	mm := startMattermost(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	takenUDP, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = takenUDP.Close() }()
	tcp, udp := taken.Addr().String(), takenUDP.LocalAddr().String()
	for key, edit := range map[string]func(*Config){
		"listen.https":   func(c *Config) { c.Listen.HTTPS = tcp },
		"listen.http":    func(c *Config) { c.Listen.HTTP = tcp },
		"listen.udp":     func(c *Config) { c.Listen.UDP = udp },
		"sfu.udp":        func(c *Config) { c.SFU.UDP = udp },
		"sfu.tcp":        func(c *Config) { c.SFU.TCP = tcp },
		"sfu.api.listen": func(c *Config) { c.SFU.API.Listen = tcp },
		"admin.listen":   func(c *Config) { c.Admin.Listen = tcp },
	} {
		t.Run(key, func(t *testing.T) {
			cfg := testConfig(mm)
			edit(&cfg)
			free := cfg.Listen.HTTPS == tcp
			if !free { // a port we can check afterwards
				cfg.Listen.HTTPS = freePort(t)
			}
			noLeak(t, func() {
				_, err := New(cfg, (&testGateway{log: &logLines{}}).options())
				if err == nil || !strings.HasPrefix(err.Error(), key+": ") || !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "another process") {
					t.Errorf("error: %v", err)
				}
			})
			if !free { // and was given back
				l, err := net.Listen("tcp", cfg.Listen.HTTPS)
				if err != nil {
					t.Fatalf("listen.https was left open: %v", err)
				}
				_ = l.Close()
			}
		})
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

func TestSecretsThatAreMissing(t *testing.T) {
	mm := startMattermost(t)
	for key, edit := range map[string]func(*Config){
		"turn.secret_file":            func(c *Config) { c.TURN.SecretFile = "nowhere" },
		"sfu.api.clients[0].key_file": func(c *Config) { c.SFU.API.Clients[0].KeyFile = "nowhere" },
	} {
		cfg := testConfig(mm)
		edit(&cfg)
		if _, err := New(cfg, (&testGateway{log: &logLines{}}).options()); err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%s: %v", key, err)
		}
	}
}

func TestExplainBind(t *testing.T) {
	for errno, want := range map[syscall.Errno]string{
		syscall.EACCES: "CAP_NET_BIND_SERVICE", syscall.EADDRINUSE: "another process", syscall.EADDRNOTAVAIL: "no interface",
	} {
		err := explainBind("listen.https", ":443", fmt.Errorf("listen tcp: %w", errno))
		if !errors.Is(err, errno) || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), `listen.https: open ":443": `) {
			t.Errorf("%v", err)
		}
	}
}

// By this the ACME library knows that the port which its challenge needs is ours.
func TestHostOf(t *testing.T) {
	for listen, want := range map[string]string{":0": "", "0.0.0.0:0": "", "127.0.0.1:0": "127.0.0.1"} {
		l, err := net.Listen("tcp", listen)
		if err != nil {
			t.Fatal(err)
		}
		if got := hostOf(l); got != want {
			t.Errorf("%s: %q, want %q", listen, got, want)
		}
		_ = l.Close()
	}
}

// The default place of the socket for commands is one that only a service has;
// any other must be possible.
func TestSocketForCommandsNeedsItsDirectory(t *testing.T) {
	if _, err := os.Stat(filepath.Dir(defaultSocket)); err == nil {
		t.Skipf("%s exists here", filepath.Dir(defaultSocket))
	}
	for path, fault := range map[string]string{"": "", defaultSocket: "", "/run/no-such-directory/x": `admin.socket: open "/run/no-such-directory/x": `} {
		l, err := listenCommands(path)
		if l != nil || (err == nil) != (fault == "") || err != nil && !strings.HasPrefix(err.Error(), fault) {
			t.Errorf("%q: %v %v", path, l, err)
		}
	}
}
