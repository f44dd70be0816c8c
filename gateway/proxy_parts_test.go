package gateway

import (
	"bufio"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sallyport/sfu"
	"sallyport/turn"
)

func TestFailureStatus(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{
		{&http.MaxBytesError{Limit: 1}, 413},
		{fmt.Errorf("send: %w", &http.MaxBytesError{Limit: 1}), 413},
		{&dialError{context.DeadlineExceeded}, 502}, // nobody there, however long it took to notice
		{context.DeadlineExceeded, 504},
		{io.ErrUnexpectedEOF, 502},
		{errBadSwitch, 502},
		{errAllDrained, 503},
	} {
		if got := failureStatus(c.err); got != c.want {
			t.Errorf("%v: %d, want %d", c.err, got, c.want)
		}
		if _, ok := failures[c.want]; !ok {
			t.Errorf("no page for %d", c.want)
		}
	}
}

func TestABodyIsSentAgainOnlyWhole(t *testing.T) {
	b := &heldBody{ReadCloser: io.NopCloser(strings.NewReader("one pizza"))}
	_ = b.Close() // as http.Transport does when it could not dial
	again, err := b.again()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(again); err != nil || string(got) != "one pizza" {
		t.Errorf("%q %v", got, err)
	}
	if _, err := b.again(); !errors.Is(err, errBodyConsumed) {
		t.Errorf("a body that was read is sent again: %v", err)
	}
}

func TestAliasesNameWhatClientsSee(t *testing.T) {
	local, public := netip.MustParseAddrPort("10.0.0.5:8443"), netip.MustParseAddrPort("203.0.113.5:8443")
	plain := netip.MustParseAddrPort("192.0.2.1:8443")
	untold := netip.MustParseAddrPort("[2001:db8::9]:8443") // by a name that has no IPv6 address
	addresses := []sfu.Address{{Local: local, Advertised: public}, {Local: plain, Advertised: plain}, {Local: untold}}
	want := []turn.Alias{{Named: public, Local: local}, {Named: local, Local: local}, {Named: plain, Local: plain}, {Named: untold, Local: untold}}
	if d := cmp.Diff(want, aliases(addresses), cmpopts.EquateComparable(netip.AddrPort{})); d != "" {
		t.Error(d)
	}
	six := sfu.Address{Local: netip.MustParseAddrPort("[2001:db8::1]:8443"), Advertised: netip.MustParseAddrPort("[2001:db8::1]:8443")}
	for _, tt := range []struct {
		of   []sfu.Address
		want []netip.Addr
	}{
		{[]sfu.Address{six, addresses[0], {Local: plain, Advertised: plain}}, []netip.Addr{public.Addr(), six.Local.Addr()}},
		{[]sfu.Address{six}, []netip.Addr{six.Local.Addr()}},
		{addresses, []netip.Addr{public.Addr(), untold.Addr()}},
	} {
		if got := relayIPs(tt.of); !slices.Equal(got, tt.want) {
			t.Errorf("relayed addresses on %v, want %v", got, tt.want)
		}
	}
	if got := relayIPs(nil); len(got) == 0 || !got[0].IsValid() {
		t.Errorf("relayed addresses on %v without an SFU", got)
	}
}

// An upstream that says 101 to whoever asks, or to what nobody asked for.
func TestUnaskedSwitchIsAnError(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
					return
				}
				_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
				_, _ = io.Copy(io.Discard, conn) // until the proxy hangs up
			}()
		}
	}()
	rig := startProxy(t, func(c *Config) { c.Upstream = []string{"http://" + ln.Addr().String()} })
	for name, r := range map[string]*http.Request{
		"plain request":   request(t, http.MethodGet, rig.url("/"), ""),
		"websocket asked": request(t, http.MethodGet, rig.url("/"), "", "Connection", "Upgrade", "Upgrade", "websocket"),
	} {
		if resp, _ := ask(t, rig.h1, r); resp.StatusCode != http.StatusBadGateway {
			t.Errorf("%s: status %d", name, resp.StatusCode)
		}
	}
	if n := rig.tunnels.count(); n != 0 {
		t.Errorf("%d tunnels", n)
	}
}

func TestUpstreamOverTLS(t *testing.T) {
	upstream := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 1 {
			t.Errorf("upstream is asked in %s", r.Proto)
		}
		if isWebSocket(r) {
			echo(w, r)
			return
		}
		_, _ = io.WriteString(w, "secure")
	}))
	defer upstream.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	root := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: upstream.Certificate().Raw})
	if err := os.WriteFile(ca, root, 0o600); err != nil {
		t.Fatal(err)
	}
	rig := startProxy(t, func(c *Config) {
		c.Upstream = []string{upstream.URL}
		c.Proxy.UpstreamCAFile, c.Proxy.UpstreamServerName = ca, "example.com"
	})
	if resp, body := rig.get("/"); resp.StatusCode != 200 || body != "secure" {
		t.Errorf("%d %q", resp.StatusCode, body)
	}
	c := rig.dial(t, "/ws")
	exchangeText(t, c, "hello")
	_ = c.Close(websocket.StatusNormalClosure, "")
}

func BenchmarkProxy(b *testing.B) {
	body := strings.Repeat("x", 8<<10)
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) }))
	defer upstream.Close()
	p, err := benchProxy(upstream.URL)
	if err != nil {
		b.Fatal(err)
	}
	server := httptest.NewServer(p)
	defer server.Close()
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		c := client(nil, "http/1.1")
		defer c.CloseIdleConnections()
		for pb.Next() {
			resp, err := c.Get(server.URL)
			if err != nil {
				b.Error(err)
				return
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
		}
	})
}
