package gateway

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAnswersStreamAsTheyCome(t *testing.T) {
	rig := startProxy(t, nil)
	rig.both(func(t *testing.T, c *http.Client) {
		resp, err := do(c, request(t, http.MethodGet, rig.url("/plugins/feed/events"), ""), func() { rig.mm.events <- "one\n" })
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		lines := bufio.NewReader(resp.Body)
		// Each is sent only after the one before has arrived.
		for i, next := range []string{"two\n", "three\n", ""} {
			line, err := lines.ReadString('\n')
			if err != nil || line != []string{"one\n", "two\n", "three\n"}[i] {
				t.Fatalf("event %d: %q %v", i, line, err)
			}
			if next != "" {
				rig.mm.events <- next
			}
		}
	})
}

// do sends r while meanwhile runs.
func do(c *http.Client, r *http.Request, meanwhile func()) (*http.Response, error) {
	go meanwhile()
	return c.Do(r)
}

func TestUploadsStreamAsTheyCome(t *testing.T) {
	rig := startProxy(t, nil)
	rig.both(func(t *testing.T, c *http.Client) {
		body, pipe := io.Pipe()
		r := request(t, http.MethodPost, rig.url("/api/v4/uploads/1"), "")
		rest := strings.Repeat("rest", smallSize/4)
		r.Body, r.ContentLength = body, int64(3*len("chunk 0")+len(rest))
		answered := make(chan error, 1)
		go func() {
			resp, err := c.Do(r)
			if err == nil {
				err = resp.Body.Close()
			}
			answered <- err
		}()
		for i := range 3 {
			chunk := fmt.Sprintf("chunk %d", i)
			mustWrite(t, pipe, chunk)
			if got := <-rig.mm.bodies; got != chunk { // arrives before the next is sent
				t.Fatalf("Mattermost got %q, want %q", got, chunk)
			}
		}
		go func() { // HTTP/2 keeps the last one until it has seen the end
			_, _ = io.WriteString(pipe, rest)
			_ = pipe.Close()
		}()
		var got string
		for len(got) < len(rest) {
			got += <-rig.mm.bodies
		}
		if got != rest {
			t.Errorf("rest: %.40q, %d bytes", got, len(got))
		}
		if err := <-answered; err != nil {
			t.Error(err)
		}
	})
}

func TestFilesArriveByteForByte(t *testing.T) {
	rig := startProxy(t, nil)
	rig.both(func(t *testing.T, c *http.Client) {
		get := func(path string, headers ...string) (*http.Response, []byte) {
			resp, body := ask(t, c, request(t, http.MethodGet, rig.url(path), "", headers...))
			return resp, []byte(body)
		}
		resp, body := get("/api/v4/files/1")
		if !bytes.Equal(body, rig.mm.file) || resp.Header.Get("ETag") != `"v1"` || resp.ContentLength != int64(len(rig.mm.file)) {
			t.Errorf("whole file: %d bytes, %v", len(body), resp.Header)
		}
		resp, body = get("/api/v4/files/1", "Range", "bytes=10-19")
		if resp.StatusCode != 206 || string(body) != "abcdef0123" || resp.Header.Get("Content-Range") != fmt.Sprintf("bytes 10-19/%d", len(rig.mm.file)) {
			t.Errorf("range: %d %q %v", resp.StatusCode, body, resp.Header)
		}
		if resp, _ = get("/api/v4/files/1", "If-None-Match", `"v1"`); resp.StatusCode != 304 || resp.Header.Get("ETag") != `"v1"` {
			t.Errorf("revalidation: %d %v", resp.StatusCode, resp.Header)
		}
		resp, body = get("/static/main.js", "Accept-Encoding", "gzip")
		if !bytes.Equal(body, rig.mm.gzip) || resp.Header.Get("Content-Encoding") != "gzip" {
			t.Errorf("gzip: %d bytes of %d, %v", len(body), len(rig.mm.gzip), resp.Header)
		}
	})
}

func TestTrailersPassBothWays(t *testing.T) {
	rig := startProxy(t, nil)
	rig.both(func(t *testing.T, c *http.Client) {
		resp, body := ask(t, c, request(t, http.MethodGet, rig.url("/plugins/trailers"), ""))
		if body != "body" || !cmp.Equal(resp.Trailer, http.Header{"X-Sum": {"42"}}) {
			t.Errorf("answer %q, trailer %v", body, resp.Trailer)
		}
		r := request(t, http.MethodPost, rig.url("/plugins/mirror/"), "x")
		r.ContentLength = -1
		r.Trailer = http.Header{"X-Check": {"17"}}
		if got := mirrored(t, c, r); !cmp.Equal(got.Trailer, http.Header{"X-Check": {"17"}}) {
			t.Errorf("request trailer at Mattermost: %v", got.Trailer)
		}
		r = request(t, http.MethodPost, rig.url("/plugins/mirror/"), "x")
		r.ContentLength = -1
		r.Trailer = http.Header{"X-Check": {"17"}, "X-Forwarded-For": {"192.0.2.1"}, "X_real_ip": {"192.0.2.1"}}
		if got := mirrored(t, c, r); !cmp.Equal(got.Trailer, http.Header{"X-Check": {"17"}}) {
			t.Errorf("what clients may not write came as a trailer: %v", got.Trailer)
		}
	})
}

func TestTrailerThatWasNotAnnounced(t *testing.T) {
	rig := startProxy(t, nil)
	conn := rig.rawTLS(t, "http/1.1")
	mustWrite(t, conn, "POST /plugins/mirror/ HTTP/1.1\r\nHost: chat\r\nTransfer-Encoding: chunked\r\nTrailer: X-Check\r\n\r\n"+
		"1\r\nx\r\n0\r\nX-Check: 17\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n")
	got := mirroredOn(t, conn)
	if !cmp.Equal(got.Trailer, http.Header{"X-Check": {"17"}}) {
		t.Errorf("trailer at Mattermost: %v", got.Trailer)
	}
}

// A health check of HTTP/1.0 names no host; Mattermost must not see its own.
func TestRequestWithoutHostIsForOurDomain(t *testing.T) {
	rig := startProxy(t, nil)
	conn := rig.rawTLS(t, "http/1.1")
	mustWrite(t, conn, "GET /plugins/mirror/ HTTP/1.0\r\n\r\n")
	got := mirroredOn(t, conn)
	if got.Host != "chat.example.com" || got.Header.Get("X-Forwarded-Host") != "chat.example.com" {
		t.Errorf("host %q, forwarded %q", got.Host, got.Header.Get("X-Forwarded-Host"))
	}
}

func TestContinueIsMattermostsToSay(t *testing.T) {
	rig := startProxy(t, nil)
	conn := rig.rawTLS(t, "http/1.1")
	in := bufio.NewReader(conn)
	send := func(path string) {
		mustWrite(t, conn, "POST "+path+" HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
	}
	status := func() string {
		t.Helper()
		line, err := in.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(line)
	}
	send("/plugins/mirror/")
	if got := status(); got != "HTTP/1.1 100 Continue" {
		t.Fatalf("before the body: %s", got)
	}
	if blank, err := in.ReadString('\n'); err != nil || strings.TrimSpace(blank) != "" {
		t.Fatalf("after 100: %q %v", blank, err)
	}
	mustWrite(t, conn, "body")
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(resp.Body); err != nil || !strings.Contains(string(body), `"Body":"body"`) {
		t.Errorf("answer %s %v", body, err)
	}
	send("/plugins/refuse") // answered without a 100: the body need not be sent
	if got := status(); got != "HTTP/1.1 401 Unauthorized" {
		t.Errorf("a refusal: %s", got)
	}
}

func TestLengthsAreKept(t *testing.T) {
	rig := startProxy(t, nil)
	rig.both(func(t *testing.T, c *http.Client) {
		got := mirrored(t, c, request(t, http.MethodPost, rig.url("/plugins/mirror/"), "four"))
		if got.Length != 4 || got.Chunked {
			t.Errorf("length %d, chunked %v", got.Length, got.Chunked)
		}
	})
}
