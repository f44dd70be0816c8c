package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport/gateway"
)

func freePorts() demoFlags {
	return demoFlags{listen: "127.0.0.1:10443", port: 0, media: 0, api: "127.0.0.1:0", admin: "127.0.0.1:0"}
}

// TestDemo runs the demo on free ports: page, configuration and rtcd API
// answer, and a signal ends it.
func TestDemo(t *testing.T) {
	d, err := newDemo(freePorts(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	var banner, line bytes.Buffer
	if err := errors.Join(d.announce(&banner, false), d.announce(&line, true)); err != nil {
		t.Fatal(err)
	}
	var at demoAddresses
	if err := json.Unmarshal(line.Bytes(), &at); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{at.URL, at.MediaUDP, at.API, "certificate"} {
		if !strings.Contains(banner.String(), want) {
			t.Errorf("the banner lacks %q:\n%s", want, &banner)
		}
	}

	signals := make(chan os.Signal, 1)
	code := make(chan int, 1)
	go func() { code <- operateOn(signals, d, slog.New(slog.DiscardHandler), func() {}) }()
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true,
	}}
	defer client.CloseIdleConnections()
	if page := body(t, client, at.URL); !strings.Contains(page, "Sallyport") {
		t.Errorf("the page is %.200s", page)
	}
	config := body(t, client, at.URL+"demo/config")
	for _, want := range []string{"turn:127.0.0.1:", "turns:127.0.0.1:", "?transport=udp", "?transport=tcp", `"credential"`} {
		if !strings.Contains(config, want) {
			t.Errorf("the configuration lacks %q: %s", want, config)
		}
	}
	if v := body(t, client, "http://"+at.API+"/version"); !strings.Contains(v, "buildVersion") {
		t.Errorf("the API answers %s", v)
	}

	signals <- syscall.SIGINT
	select {
	case c := <-code:
		if c != 0 {
			t.Errorf("exit code %d", c)
		}
	case <-time.After(time.Minute):
		t.Fatal("the signal did not end the demo")
	}
}

func body(t *testing.T, c *http.Client, url string) string {
	t.Helper()
	resp, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s, %v", url, resp.Status, err)
	}
	return string(b)
}

// TestDemoEndsWithItsContext: the second signal cancels it.
func TestDemoEndsWithItsContext(t *testing.T) {
	d, err := newDemo(freePorts(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("Run did not return")
	}
}

// TestDemoSaysWhichFlagMovesThePort takes each port in turn.
func TestDemoSaysWhichFlagMovesThePort(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	address := taken.Addr().String()
	tests := map[string]func(*demoFlags){
		"-port":       func(f *demoFlags) { f.port = portOf(address) },
		"-media-port": func(f *demoFlags) { f.media = portOf(address) },
		"-api":        func(f *demoFlags) { f.api = address },
		"-admin":      func(f *demoFlags) { f.admin = address },
	}
	for name, edit := range tests {
		f := freePorts()
		edit(&f)
		_, err := newDemo(f, slog.New(slog.DiscardHandler))
		if err == nil {
			t.Errorf("%s: the demo started on a taken port", name)
			continue
		}
		want := "tcp port " + address + " is in use by another program: stop that one, or choose another port with " + name
		if diff := cmp.Diff(want, portHint(err, f).Error()); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestDemoConfigIsValid(t *testing.T) {
	for _, listen := range []string{"127.0.0.1:10443", "192.0.2.7:443", "[::1]:10443"} {
		f := demoFlags{listen: listen, port: -1, media: 8443, api: "127.0.0.1:8045", admin: "127.0.0.1:9443"}
		c, err := f.config()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]gateway.Problem(nil), c.Validate()); diff != "" {
			t.Errorf("%s: %s", listen, diff)
		}
	}
	for _, f := range []demoFlags{
		{listen: ":10443", port: -1}, {listen: "0.0.0.0:10443", port: -1}, {listen: "localhost:10443", port: -1},
		{listen: "127.0.0.1:10443", port: 65536}, {listen: "127.0.0.1:10443", media: -1},
	} {
		if _, err := f.config(); err == nil {
			t.Errorf("%+v was accepted", f)
		}
	}
}
