package gateway

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// A pipeTunnel is a tunnel between two ends in memory, for tests with a clock of
// their own.
type pipeTunnel struct {
	*tunnel
	client, upstream net.Conn // the far ends
	got              chan string
}

func startPipeTunnel(idle time.Duration) *pipeTunnel {
	client, nearClient := net.Pipe()
	upstream, nearUpstream := net.Pipe()
	set := newTunnels(newMetrics(prometheus.NewRegistry()))
	p := &pipeTunnel{newTunnel(set, nearClient, nearUpstream, nearUpstream, idle), client, upstream, make(chan string, 1)}
	set.add(p.tunnel)
	go p.up(nil)
	go p.down()
	return p
}

// listen gathers what the client gets until its connection ends.
func (p *pipeTunnel) listen() {
	go func() {
		all, _ := io.ReadAll(p.client)
		p.got <- string(all)
	}()
}

const frameHi, frameHalf, frame1012 = "\x81\x02hi", "\x81\x05he", "\x88\x02\x03\xf4"

func TestNoGoodbyeInTheMiddleOfAFrame(t *testing.T) {
	for _, c := range []struct {
		name, why string
		reads     []string
		want      string
	}{
		{"between frames", endedByDrain, []string{frameHi, frameHi}, frameHi + frameHi + frame1012},
		{"before the first", endedByDrain, nil, frame1012},
		{"inside a frame", endedByDrain, []string{frameHi, frameHalf}, frameHi + frameHalf},
		{"inside a header", endedByDrain, []string{frameHi, "\x81"}, frameHi + "\x81"},
		{"idle", endedIdle, []string{frameHi}, frameHi + frame1012},
		{"Mattermost hung up", "", []string{frameHi}, frameHi},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := startPipeTunnel(time.Minute)
				p.listen()
				for _, read := range c.reads {
					mustWrite(t, p.upstream, read)
				}
				synctest.Wait()
				switch c.why {
				case endedIdle:
					time.Sleep(time.Minute)
				case endedByDrain:
					p.end(endedByDrain)
				default:
					_ = p.upstream.Close()
				}
				if got := <-p.got; got != c.want {
					t.Errorf("client got %q, want %q", got, c.want)
				}
				synctest.Wait()
				want := c.why
				if want == "" {
					want = endedByUpstream
				}
				if n := metric(p.set.metrics.wsClosed.WithLabelValues(want)); n != 1 || p.set.count() != 0 {
					t.Errorf("%v counted as %q, %d left", n, want, p.set.count())
				}
			})
		})
	}
}

// Either side alone keeps it open.
func TestEitherSideKeepsAWebSocketOpen(t *testing.T) {
	for _, side := range []string{"client", "upstream"} {
		t.Run(side, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := startPipeTunnel(2 * time.Minute)
				from, to := p.client, p.upstream
				if side == "upstream" {
					from, to = p.upstream, p.client
				}
				heard := make(chan int64, 1)
				go func() {
					n, _ := io.CopyN(io.Discard, to, 10*int64(len(frameHi)))
					heard <- n
				}()
				for range 10 {
					time.Sleep(119 * time.Second)
					mustWrite(t, from, frameHi)
				}
				if n := <-heard; n != 10*int64(len(frameHi)) {
					t.Fatalf("%d bytes came through", n)
				}
				p.listen()
				last := time.Now()
				<-p.got
				if quiet := time.Since(last); quiet < 2*time.Minute || quiet > 2*time.Minute+2*goodbyeLimit {
					t.Errorf("ended after %s of silence", quiet)
				}
			})
		})
	}
}

// The connection stays until the client has answered the Close frame, and no
// longer than it has to.
func TestTheClientsCloseIsAwaited(t *testing.T) {
	for _, answers := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			p := startPipeTunnel(time.Minute)
			go func() { _, _ = io.Copy(io.Discard, p.upstream) }()
			p.end(endedByDrain)
			goodbye := make([]byte, len(frame1012))
			if _, err := io.ReadFull(p.client, goodbye); err != nil || string(goodbye) != frame1012 {
				t.Fatalf("%q, %v", goodbye, err)
			}
			begin := time.Now()
			mustWrite(t, p.client, "\x81\x82\x00\x00\x00\x00hi") // on its way before the Close arrived
			want := goodbyeLimit
			if answers {
				mustWrite(t, p.client, "\x88\x82\x00\x00\x00\x00\x03\xf4")
				want = 0
			}
			if _, err := p.client.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("end: %v", err)
			}
			if took := time.Since(begin); took != want {
				t.Errorf("answers %t: closed after %s, want %s", answers, took, want)
			}
		})
	}
}

// What comes along with a handshake is of the tunnel, in both directions.
func TestBytesBehindTheHandshakeArrive(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	heard := make(chan string, 1)
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		in := bufio.NewReader(conn)
		if _, err := http.ReadRequest(in); err != nil {
			return
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"+frameHi)
		got := make([]byte, len("early, later"))
		_, _ = io.ReadFull(in, got)
		heard <- string(got)
	}()
	rig := startProxy(t, func(c *Config) { c.Upstream = []string{"http://" + ln.Addr().String()} })
	conn := rig.rawTLS(t)
	mustWrite(t, conn, handshake+"early")
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v %v", resp, err)
	}
	got := make([]byte, len(frameHi))
	if _, err := io.ReadFull(in, got); err != nil || string(got) != frameHi {
		t.Errorf("behind the answer: %q, %v", got, err)
	}
	mustWrite(t, conn, ", later")
	if got := <-heard; got != "early, later" {
		t.Errorf("upstream heard %q", got)
	}
	if n := metric(rig.metrics.malformed); n != 0 {
		t.Errorf("%v requests counted as malformed", n)
	}
}

const handshake = "GET /api/v4/websocket HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

// If the handshake is declined, what came behind it is no request.
func TestNothingIsServedBehindADeclinedHandshake(t *testing.T) {
	rig := startProxy(t, nil)
	conn := rig.rawTLS(t)
	mustWrite(t, conn, strings.Replace(handshake, "/api/v4/websocket", "/plugins/gone/ws", 1)+
		"GET /plugins/mirror/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n")
	all, _ := io.ReadAll(conn)
	if n := strings.Count(string(all), "HTTP/1.1 "); n != 1 || !strings.HasPrefix(string(all), "HTTP/1.1 403 ") ||
		!strings.Contains(string(all), "\r\nConnection: close\r\n") {
		t.Errorf("%q", all)
	}
}

// A client that never stops sending is told all the same.
func TestABusyClientHearsTheGoodbye(t *testing.T) {
	rig := startProxy(t, func(c *Config) { c.Drain.WebsocketSpread = 0 })
	conn := rig.rawTLS(t)
	mustWrite(t, conn, handshake)
	in := bufio.NewReader(conn)
	if resp, err := http.ReadResponse(in, nil); err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v %v", resp, err)
	}
	go func() {
		message := append([]byte("\x82\xfe\x04\x00\x00\x00\x00\x00"), make([]byte, 1024)...)
		for {
			if _, err := conn.Write(message); err != nil {
				return
			}
		}
	}()
	go func() {
		eventually(t, "some of it is under way", func() bool { return metric(rig.metrics.wsOpen) == 1 })
		rig.stop()
	}()
	all, _ := io.ReadAll(in)
	if !strings.HasSuffix(string(all), frame1012) && len(all)%1028 == 0 {
		t.Errorf("got %d bytes, the last of them %q", len(all), all[max(0, len(all)-8):])
	}
}

func TestRefusal(t *testing.T) {
	long := strings.Repeat("x", 3*reasonLength)
	for _, c := range []struct{ body, want string }{
		{`{"id":"api.web_socket.connect.upgrade.app_error","message":"URL Blocked","status_code":400}`, "api.web_socket.connect.upgrade.app_error: URL Blocked"},
		{"Forbidden\nand more\n", "Forbidden"},
		{`{"id":5}`, `{"id":5}`},
		{long, long[:reasonLength]},
		{strings.Repeat("x", maxRefusal+1), ""},
		{"", ""},
	} {
		resp := &http.Response{Body: io.NopCloser(strings.NewReader(c.body)), ContentLength: int64(len(c.body)), Header: http.Header{}}
		if got := refusal(resp); got != c.want {
			t.Errorf("%q: %q, want %q", c.body, got, c.want)
		}
		if rest, err := io.ReadAll(resp.Body); err != nil || string(rest) != c.body {
			t.Errorf("%q: body is now %q, %v", c.body, rest, err)
		}
	}
}
