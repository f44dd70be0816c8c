package gateway

import (
	"bufio"
	"crypto/tls"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/sys/unix"
)

// Both connections of a WebSocket are watched by the kernel: the peer of a silent
// one is asked whether it lives, and what it does not acknowledge is not sent for
// a quarter of an hour.
func TestBothEndsOfATunnelAreKeptAlive(t *testing.T) {
	over := httptest.NewTLSServer(http.HandlerFunc(echo))
	t.Cleanup(over.Close)
	root := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: over.Certificate().Raw})
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, root, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, upstream := range map[string]string{"http": "", "https": over.URL} {
		t.Run(name, func(t *testing.T) {
			tg := startGateway(t, func(c *Config) {
				if upstream != "" {
					c.Upstream, c.Proxy.UpstreamCAFile = []string{upstream}, ca
					c.Proxy.UpstreamServerName = "example.com"
				}
			})
			c, _, err := websocket.Dial(t.Context(), "wss://"+tg.Addrs().HTTPS+"/plugins/focalboard/ws", &websocket.DialOptions{HTTPClient: client(nil, "http/1.1")})
			if err != nil {
				t.Fatal(err)
			}
			defer c.CloseNow()
			exchangeText(t, c, "hello")
			one := tg.proxy.tunnels.to(nil)[0]
			for name, leg := range map[string]*leg{"client": one.client, "upstream": one.upstream} {
				for option, want := range map[[2]int]int{
					{unix.SOL_SOCKET, unix.SO_KEEPALIVE}:      1,
					{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE}:     15,
					{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL}:    15,
					{unix.IPPROTO_TCP, unix.TCP_KEEPCNT}:      4,
					{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT}: 75_000,
				} {
					if leg.raw == nil {
						t.Fatalf("%s: no socket found below %T", name, leg.Conn)
					}
					if err := leg.raw.Control(func(fd uintptr) {
						if got, err := unix.GetsockoptInt(int(fd), option[0], option[1]); err != nil || got != want {
							t.Errorf("%s: option %v is %d, %v; want %d", name, option, got, err, want)
						}
					}); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
}

// What a client sends along with its handshake, in one TLS record of which
// net/http reads a part, reaches the upstream though the socket is silent after.
func TestLongRecordBehindTheHandshakeArrives(t *testing.T) {
	rig := startProxy(t, nil)
	conn, err := tls.Dial("tcp", rig.host, &tls.Config{RootCAs: rig.roots, DynamicRecordSizingDisabled: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	const size = 10 << 10 // net/http reads 4 KiB at once
	text := strings.Repeat("x", size)
	mustWrite(t, conn, "GET /plugins/focalboard/ws HTTP/1.1\r\nHost: "+rig.host+"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"+
		"\x81\xfe"+string([]byte{size >> 8, size & 0xff})+"\x00\x00\x00\x00"+text)
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v, %v", resp, err)
	}
	frame := make([]byte, 4+size)
	if _, err := io.ReadFull(in, frame); err != nil || string(frame[4:]) != text {
		t.Errorf("%v", err)
	}
}
