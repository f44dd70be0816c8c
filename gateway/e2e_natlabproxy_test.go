package gateway_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/sfu/peer"
)

// A proxy is a way out through an HTTP proxy, for somebody at an address who has
// no other.
type proxy struct {
	from    netip.Addr
	address string
	login   *url.Userinfo // nil for none
}

// dial connects through the proxy, and does a TLS handshake with what is behind it.
func (p proxy) dial(ctx context.Context, to string, protocols ...string) (*tls.Conn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: p.from.AsSlice()}}
	conn, err := d.DialContext(ctx, "tcp", p.address)
	if err != nil {
		return nil, err
	}
	ask := &http.Request{Method: http.MethodConnect, Host: to, URL: &url.URL{Opaque: to}, Header: http.Header{}}
	if p.login != nil {
		password, _ := p.login.Password()
		ask.SetBasicAuth(p.login.Username(), password)
		ask.Header["Proxy-Authorization"] = ask.Header["Authorization"]
		ask.Header.Del("Authorization")
	}
	if err := ask.Write(conn); err != nil {
		return nil, err
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), ask) // the other side waits for us now
	if err != nil {
		return nil, fmt.Errorf("answer of the proxy: %w", err)
	}
	if answer.StatusCode != http.StatusOK {
		_ = conn.Close()
		return nil, fmt.Errorf("the proxy says %s", answer.Status)
	}
	secure := tls.Client(conn, insecure(protocols...))
	return secure, secure.HandshakeContext(ctx)
}

// get gets a page of the product, with HTTP/1.1.
func (p proxy) get(ctx context.Context, host string) (*http.Response, error) {
	conn, err := p.dial(ctx, net.JoinHostPort(host, "443"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	if _, err := fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", host); err != nil {
		return nil, err
	}
	return http.ReadResponse(bufio.NewReader(conn), nil)
}

// joinThrough joins with media over TURN/TLS through a proxy.
func (n *network) joinThrough(p proxy) (*peer.Peer, error) {
	cfg := n.participant(peer.TURNTLS)
	cfg.LocalIP = p.from
	cfg.DialTURN = func(_, _ string) (net.Conn, error) { return p.dial(n.t.Context(), n.HTTPS) }
	return peer.Join(within(n.t), n.plugin, cfg)
}

// talksThrough: somebody who has nothing but a proxy gets the page, and into a call.
func (n *network) talksThrough(p proxy) {
	n.t.Helper()
	answer, err := p.get(within(n.t), n.host())
	if err != nil || answer.StatusCode != http.StatusOK || answer.Header.Get("Via") != "" {
		n.t.Errorf("the page through the proxy: %v, %v", answer, err)
	}
	inside, err := n.joinThrough(p)
	must(n.t, err)
	n.t.Cleanup(func() { _ = inside.Close() })
	n.converse(inside, n.joinAt(nth(1), peer.UDP, peer.UDP))
	n.t.Log(n.goes(inside, peer.TURNTLS))
}

// host is that of the product.
func (n *network) host() string { return netip.MustParseAddrPort(n.HTTPS).Addr().String() }

// proxies are the scenes in which nothing but a proxy leads out.
func (n *network) proxies(t *testing.T) {
	n.scene(t, "CONNECT", func(n *network) {
		squid := startSquid(n.t, nil, n.there)
		n.talksThrough(squid.at(squidOpen))
	})
	n.scene(t, "CONNECT with a login", func(n *network) {
		t := n.t
		way := startSquid(t, nil, n.there).at(squidLogin)
		if _, err := way.dial(within(t), n.HTTPS); err == nil || !strings.Contains(err.Error(), "407") {
			t.Errorf("without a login: %v, want 407", err)
		}
		way.login = url.UserPassword(squidUser, squidPassword)
		n.talksThrough(way)
	})
	n.scene(t, "inspection", func(n *network) { n.inspected(startSquid(n.t, nil, n.there)) })
	n.scene(t, "a proxy without ALPN", func(n *network) {
		t := n.t
		r := newRouter(t, nil, n.there, "")
		way := proxy{from: r.client, address: r.splice(t, n.HTTPS)}
		conn, err := way.dial(within(t), n.HTTPS, "h2", "http/1.1")
		must(t, err)
		if got := conn.ConnectionState().NegotiatedProtocol; got != "" {
			t.Errorf("ALPN gets through: %q", got)
		}
		_ = conn.Close()
		n.talksThrough(way)
	})
}

// closedByOpeners counts the connections that ended after the handshake, without a
// word and without ALPN.
const closedByOpeners = `sallyport_demux_connections_total{alpn="none",kind="closed",port="443"}`

// inspected: a proxy that opens TLS gives the page, and no call. The client is told
// in no time, and we count it.
func (n *network) inspected(squid *squidHouse) {
	t := n.t
	if squid.inspects != nil {
		t.Skipf("SKIPPED, NOT TESTED: TLS inspection: %v", squid.inspects)
	}
	way := squid.at(squidInspect)
	if answer, err := way.get(within(t), n.host()); err != nil || answer.StatusCode != http.StatusOK || answer.Header.Get("Via") == "" {
		t.Errorf("the page: %v, %v; want it by way of Squid", answer, err)
	}
	before, _ := n.metric(within(t), closedByOpeners) // there is none before the first
	began := time.Now()
	p, err := n.joinThrough(way)
	if err == nil {
		_ = p.Close()
		t.Fatal("media went through a proxy that opens TLS")
	}
	t.Logf("after %v: %v", time.Since(began).Round(time.Millisecond), err)
	// Whoever gives up closes his connection, and Squid then closes its own.
	conn, err := way.dial(within(t), n.HTTPS)
	must(t, err)
	_, err = conn.Write(stunHead(0))
	must(t, err)
	must(t, conn.Close())
	eventually(t, "the count of closed connections", func() bool {
		after, err := n.metric(within(t), closedByOpeners)
		return err == nil && after > before
	})
}

// splice runs a proxy in the router that ends TLS on both sides, and negotiates no
// protocol. It returns its address.
func (r *router) splice(t *testing.T, server string) string {
	var listener net.Listener
	must(t, r.do(func() (err error) {
		listener, err = net.Listen("tcp", net.JoinHostPort(r.inside.String(), "0"))
		return err
	}))
	t.Cleanup(func() { _ = listener.Close() })
	own := spliceCertificate(t)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go r.carry(t.Context(), conn, own, server)
		}
	}()
	return listener.Addr().String()
}

func (r *router) carry(ctx context.Context, conn net.Conn, own *tls.Config, server string) {
	defer func() { _ = conn.Close() }()
	if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
		return
	}
	_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
	client := tls.Server(conn, own)
	if client.HandshakeContext(ctx) != nil {
		return
	}
	var out net.Conn
	if r.do(func() (err error) { out, err = dialTLS(ctx, "", server); return err }) != nil {
		return
	}
	defer func() { _ = out.Close() }()
	go func() { _, _ = io.Copy(out, client); _ = out.Close() }()
	_, _ = io.Copy(client, out)
}

// spliceCertificate is one that nobody should trust.
func spliceCertificate(t *testing.T) *tls.Config {
	t.Helper()
	dir := t.TempDir()
	key, file := filepath.Join(dir, "key"), filepath.Join(dir, "pem")
	out, err := exec.Command("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
		"-subj", "/CN=localhost", "-keyout", key, "-out", file).CombinedOutput()
	if err != nil {
		t.Fatalf("openssl: %v: %s", err, out)
	}
	pair, err := tls.LoadX509KeyPair(file, key)
	must(t, err)
	return &tls.Config{Certificates: []tls.Certificate{pair}}
}
