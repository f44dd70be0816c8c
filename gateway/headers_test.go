package gateway

import (
	"bufio"
	"bytes"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// A header beyond proxy.max_header gets 431 in both protocols, and one a little
// below it passes.
func TestHugeHeadersAreRefused(t *testing.T) {
	const limit = 16 << 10
	rig := startProxy(t, func(c *Config) { c.Proxy.MaxHeader = limit })
	for size, want := range map[int]int{limit * 3 / 4: 200, limit * 3 / 2: 431, limit * 7 / 2: 431} {
		value := strings.Repeat("x", size/8)
		if got := rig.h1Status(t, value); got != want {
			t.Errorf("HTTP/1.1, %d bytes: status %d, want %d", size, got, want)
		}
		if got := rig.h2Status(t, value); got != want {
			t.Errorf("HTTP/2, %d bytes: status %d, want %d", size, got, want)
		}
	}
}

// A browser with too many cookies gets its 431, and what else it does on that
// connection goes on. Beyond headerRoom the connection ends.
func TestHugeHeaderSparesItsNeighbours(t *testing.T) {
	const limit = 16 << 10
	rig := startProxy(t, func(c *Config) { c.Proxy.MaxHeader = limit })
	var first, second string
	neighbour := request(t, http.MethodGet, rig.url("/plugins/slow"), "")
	neighbour = neighbour.WithContext(traced(t.Context(), &first))
	done := make(chan int, 1)
	go func() {
		resp, err := rig.h2.Do(neighbour)
		if err != nil {
			t.Error(err)
			done <- 0
			return
		}
		_ = resp.Body.Close()
		done <- resp.StatusCode
	}()
	eventually(t, "the neighbour is with Mattermost", func() bool { return metric(rig.metrics.inFlight) == 1 })

	cookies := strings.Repeat("session="+strings.Repeat("x", 4000)+"; ", 3*limit/4000)
	huge := request(t, http.MethodGet, rig.url("/"), "", "Cookie", cookies)
	resp, _ := ask(t, rig.h2, huge.WithContext(traced(t.Context(), &second)))
	if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("%d bytes of cookies: status %d, want 431", len(cookies), resp.StatusCode)
	}
	close(rig.mm.stall)
	if got := <-done; got != http.StatusOK || first != second {
		t.Errorf("the neighbour got %d; connections %q and %q", got, first, second)
	}
	if got := rig.h2Status(t, strings.Repeat("x", 2*headerRoom*limit/8)); got != 0 {
		t.Errorf("a header of %d limits: status %d, want the end of the connection", 2*headerRoom, got)
	}
}

// h1Status is what a request with eight long fields is answered. net/http's client
// may notice the end of the connection before the answer.
func (rig *proxyRig) h1Status(t *testing.T, value string) int {
	t.Helper()
	conn := rig.rawTLS(t, "http/1.1")
	mustWrite(t, conn, "GET / HTTP/1.1\r\nHost: x\r\n"+strings.Repeat("X-Huge: "+value+"\r\n", 8)+"\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// h2Status is the same for HTTP/2, whose client in net/http would not send what
// is longer than the server says it takes; 0 if the connection ends.
func (rig *proxyRig) h2Status(t *testing.T, value string) int {
	t.Helper()
	conn := rig.rawTLS(t, "h2")
	h2Settings(t, conn)
	var block bytes.Buffer
	e := hpack.NewEncoder(&block)
	fields := []hpack.HeaderField{
		{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "https"}, {Name: ":authority", Value: "x"}, {Name: ":path", Value: "/"},
	}
	for range 8 {
		fields = append(fields, hpack.HeaderField{Name: "x-huge", Value: value, Sensitive: true}) // not indexed
	}
	for _, f := range fields {
		if err := e.WriteField(f); err != nil {
			t.Fatal(err)
		}
	}
	f := http2.NewFramer(conn, conn)
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	first := block.Next(16 << 10)
	err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: first, EndStream: true, EndHeaders: block.Len() == 0})
	for err == nil && block.Len() > 0 {
		next := block.Next(16 << 10)
		err = f.WriteContinuation(1, block.Len() == 0, next)
	}
	for err == nil {
		var frame http2.Frame
		if frame, err = f.ReadFrame(); err != nil {
			break
		}
		if _, ok := frame.(*http2.GoAwayFrame); ok {
			return 0
		}
		if h, ok := frame.(*http2.MetaHeadersFrame); ok {
			return map[string]int{"200": 200, "431": 431}[h.PseudoValue("status")]
		}
	}
	t.Log(err)
	return 0
}
