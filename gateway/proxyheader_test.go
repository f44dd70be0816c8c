package gateway

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"sallyport/turn"
)

// A load balancer that sends PROXY headers hides nobody: Mattermost and TURN
// clients are told of the address in the header.
func TestProxyHeaderReachesEverybody(t *testing.T) {
	const header, client = "PROXY TCP4 192.0.2.77 198.51.100.1 50123 443\r\n", "192.0.2.77"
	g := startGateway(t, func(c *Config) { c.Proxy.TrustedProxies = []string{"127.0.0.1"} })
	behind := func(ctx context.Context, _, _ string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", g.Addrs().HTTPS)
		if err == nil {
			_, err = io.WriteString(c, header)
		}
		return c, err
	}
	config := &tls.Config{InsecureSkipVerify: true, ServerName: "localhost"}

	transport := &http.Transport{DialContext: behind, TLSClientConfig: config.Clone(), ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Get("https://localhost/plugins/mirror/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var got seen
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil {
		t.Fatal(err)
	}
	if x := got.Header.Get("X-Forwarded-For"); x != client {
		t.Errorf("X-Forwarded-For is %q, want %q", x, client)
	}

	username, password := turn.Credentials([]byte(testTURNSecret), "alice", time.Now().Add(time.Hour))
	for network, dial := range map[string]func(context.Context) (net.Conn, error){
		"tcp": func(ctx context.Context) (net.Conn, error) { return behind(ctx, "", "") },
		"tls": func(ctx context.Context) (net.Conn, error) {
			c, err := behind(ctx, "", "")
			return tls.Client(c, config), err
		},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		res, err := turn.Probe(ctx, turn.ProbeTarget{Network: network, Dial: dial, Username: username, Password: password})
		cancel()
		if err != nil || res.Mapped.String() != client+":50123" {
			t.Errorf("TURN over %s: mapped address %v, %v", network, res.Mapped, err)
		}
	}
}

// On listen.http, too: it is the client that gets the redirect, and a header of
// somebody else ends the connection.
func TestProxyHeaderOnPort80(t *testing.T) {
	const request = "PROXY TCP4 192.0.2.77 198.51.100.1 50123 80\r\nGET /page HTTP/1.1\r\nHost: x\r\n\r\n"
	for trusted, want := range map[string]string{"127.0.0.1": "HTTP/1.1 301 Moved Permanently", "192.0.2.1": ""} {
		g := startGateway(t, func(c *Config) { c.Proxy.TrustedProxies = []string{trusted} })
		c, err := net.Dial("tcp", g.Addrs().HTTP)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		mustWrite(t, c, request)
		answer, _ := io.ReadAll(c)
		if line, _, _ := strings.Cut(string(answer), "\r\n"); line != want {
			t.Errorf("with %s trusted: %q, want %q", trusted, line, want)
		}
	}
}
