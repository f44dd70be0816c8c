package gateway

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// h2Answer is the status that a request is answered, which may be one that net/http's
// client would not send: its pseudo-header, more fields in pairs, and its body.
func (rig *proxyRig) h2Answer(t *testing.T, method, host, path, body string, more ...string) int {
	t.Helper()
	conn := rig.rawTLS(t, "h2")
	defer func() { _ = conn.Close() }()
	h2Settings(t, conn)
	var block bytes.Buffer
	e := hpack.NewEncoder(&block)
	fields := append([]string{":method", method, ":scheme", "https", ":authority", host, ":path", path}, more...)
	for i := 0; i < len(fields); i += 2 {
		_ = e.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}) // into memory
	}
	f := http2.NewFramer(conn, conn)
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndStream: body == "", EndHeaders: true})
	if err == nil && body != "" {
		err = f.WriteData(1, true, []byte(body))
	}
	for err == nil {
		var frame http2.Frame
		frame, err = f.ReadFrame()
		if h, ok := frame.(*http2.MetaHeadersFrame); ok {
			status, _ := strconv.Atoi(h.PseudoValue("status"))
			return status
		}
	}
	t.Fatal(err)
	return 0
}

// h1Answer is the status that text is answered.
func (rig *proxyRig) h1Answer(t *testing.T, text string) int {
	t.Helper()
	conn := rig.rawTLS(t, "http/1.1")
	defer func() { _ = conn.Close() }()
	mustWrite(t, conn, text)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode
}

// unblamed fails if the upstream is held to be at fault for anything.
func (rig *proxyRig) unblamed(t *testing.T) {
	t.Helper()
	u := rig.settings.Load().pool.upstreams[0]
	eventually(t, "nothing is under way", func() bool { return u.busy.Load() == 0 })
	if u.strikes.Load() != 0 || u.level() != healthy {
		t.Errorf("%d strikes, level %d", u.strikes.Load(), u.level())
	}
}

// What HTTP/1 cannot say, or what would be another request there, is refused, and
// Mattermost neither asked nor blamed.
func TestRequestsThatHTTP1CannotSay(t *testing.T) {
	c := startCounted(t)
	rig := startProxy(t, func(cfg *Config) { cfg.Upstream = []string{"http://" + c.ln.Addr().String()} })
	for _, body := range []string{"", "body of no length"} {
		for _, r := range [][3]string{
			{"GET /x HTTP/1.1", "x", "/"},
			{"A\tB", "x", "/"},
			{"GET", "x", "y:z:/api/v4/users/login"},
			{"GET", "x y", "/"},
			{"GET", "x/y", "/"},
			{"GET", "xn--\xff", "/"},
			{"GET", "x", "/?a b"},
		} {
			if status := rig.h2Answer(t, r[0], r[1], r[2], body); status != http.StatusBadRequest {
				t.Errorf("%q: status %d", r, status)
			}
		}
	}
	for _, target := range []string{"y:z:/api/v4/users/login", "y:login", "http://xn--\xff/"} {
		if status := rig.h1Answer(t, "GET "+target+" HTTP/1.1\r\nHost: x\r\n\r\n"); status != http.StatusBadRequest {
			t.Errorf("%q: status %d", target, status)
		}
	}
	if len(c.conns) != 0 {
		t.Error("Mattermost was asked")
	}
	rig.unblamed(t)
}

// Who announces a trailer can write anything, which http.Transport would refuse.
func TestTrailersWithoutAName(t *testing.T) {
	rig := startProxy(t, nil)
	for range 2 {
		for _, name := range []string{"a b", "\u00e4"} {
			status := rig.h1Answer(t, "POST /plugins/mirror/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: "+name+"\r\n\r\n1\r\nx\r\n0\r\n\r\n")
			if status != http.StatusOK {
				t.Errorf("trailer %q: status %d", name, status)
			}
		}
		for _, body := range []string{"", "x"} {
			if status := rig.h2Answer(t, "POST", "x", "/plugins/mirror/", body, "trailer", "a b,"); status != http.StatusOK {
				t.Errorf("HTTP/2, body %q: status %d", body, status)
			}
		}
	}
	rig.unblamed(t)
}

// A body that ends before its length is the client's fault.
func TestBodiesShorterThanTheirLength(t *testing.T) {
	rig := startProxy(t, nil)
	for _, length := range []int{5, smallSize + 1} {
		status := rig.h2Answer(t, "POST", "x", "/plugins/mirror/", "body", "content-length", strconv.Itoa(length))
		if status != http.StatusBadRequest {
			t.Errorf("4 bytes of %d: status %d", length, status)
		}
	}
	rig.unblamed(t)
}

// net/http panics of a status below 100.
func TestStatusThatThereIsNoneOf(t *testing.T) {
	c := startCounted(t)
	rig := startProxy(t, func(cfg *Config) { cfg.Upstream = []string{"http://" + c.ln.Addr().String()} })
	for _, body := range []string{"", strings.Repeat("x", smallSize+1)} {
		done := make(chan int, 1)
		go func() {
			resp, err := rig.h1.Do(request(t, http.MethodPost, rig.url("/"), body))
			if err != nil {
				t.Error(err)
				done <- 0
				return
			}
			_ = resp.Body.Close()
			done <- resp.StatusCode
		}()
		conn := <-c.conns
		req, err := http.ReadRequest(bufio.NewReader(conn))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, req.Body)
		mustWrite(t, conn, "HTTP/1.1 099 X\r\nContent-Length: 2\r\n\r\nhi")
		if status := <-done; status != http.StatusBadGateway {
			t.Errorf("status %d", status)
		}
	}
	rig.unblamed(t)
}

// Hints are for those who know them, and what is between neighbours stays there.
func TestHintsEndToEnd(t *testing.T) {
	for version, want := range map[string]string{"1.0": "HTTP/1.0 200 OK", "1.1": "HTTP/1.1 103 Early Hints"} {
		c := startCounted(t)
		rig := startProxy(t, func(cfg *Config) { cfg.Upstream = []string{"http://" + c.ln.Addr().String()} })
		conn := rig.rawTLS(t, "http/1.1")
		mustWrite(t, conn, "GET / HTTP/"+version+"\r\nHost: x\r\nConnection: close\r\n\r\n")
		c.answer(t, <-c.conns, "HTTP/1.1 103 Early Hints\r\nConnection: X-Ours\r\nX-Ours: 1\r\nLink: </a>\r\n\r\n"+okHi)
		all, err := io.ReadAll(conn)
		if got := string(all); err != nil || !strings.HasPrefix(got, want+"\r\n") || strings.Contains(got, "X-Ours") {
			t.Errorf("HTTP/%s: %q, %v", version, got, err)
		}
		if strings.Contains(string(all), "Link") != (version == "1.1") {
			t.Errorf("HTTP/%s: %q", version, all)
		}
	}
}
