package gateway

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// patientSite serves the proxy to upstream with little patience, over TLS, and
// returns a client for proto and a way to connect by hand.
func patientSite(t *testing.T, proto string, limit time.Duration, upstream http.HandlerFunc) (*http.Client, func() net.Conn, string) {
	t.Helper()
	return crawlingSite(t, proto, limit, 0, upstream)
}

// crawlingSite is the same with a rate in bytes a second that uploads must have.
func crawlingSite(t *testing.T, proto string, limit time.Duration, minRate int64, upstream http.HandlerFunc) (*http.Client, func() net.Conn, string) {
	t.Helper()
	mm := httptest.NewServer(upstream)
	t.Cleanup(mm.Close)
	p, err := benchProxy(mm.URL)
	if err != nil {
		t.Fatal(err)
	}
	addr := serveSite(t, p, limit, minRate)
	c := client(nil, proto)
	t.Cleanup(c.CloseIdleConnections)
	dial := func() net.Conn {
		conn, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		_ = conn.SetDeadline(time.Now().Add(time.Minute))
		return conn
	}
	return c, dial, "https://" + addr
}

func serveSite(t *testing.T, h http.Handler, limit time.Duration, minRate int64) string {
	t.Helper()
	s := newSite(h, slog.New(slog.DiscardHandler))
	s.patience = limit
	s.minRate.Store(minRate)
	cert, _ := testCertificate()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- s.run(ctx, ctx, tls.NewListener(ln, &tls.Config{
			Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2", "http/1.1"},
		}))
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return ln.Addr().String()
}

func TestUploadThatStopsIsGivenUp(t *testing.T) {
	for _, proto := range []string{"http/1.1", "h2"} {
		t.Run(proto, func(t *testing.T) {
			t.Parallel()
			gone := make(chan error, 1)
			c, _, url := patientSite(t, proto, time.Second, func(_ http.ResponseWriter, r *http.Request) {
				_, err := io.ReadAll(r.Body)
				gone <- err
			})
			body, rest := io.Pipe()
			t.Cleanup(func() { rest.Close() })
			go rest.Write([]byte("hello"))
			resp, err := c.Post(url, "text/plain", body)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusRequestTimeout {
				t.Errorf("status %d, want 408", resp.StatusCode)
			}
			if err := <-gone; err == nil {
				t.Error("Mattermost took half an upload for a whole one")
			}
		})
	}
}

// A byte now and then is no upload, however long each wait is: see proxy.min_rate.
func TestUploadThatCrawlsIsGivenUp(t *testing.T) {
	for _, proto := range []string{"http/1.1", "h2"} {
		t.Run(proto, func(t *testing.T) {
			t.Parallel()
			c, _, url := crawlingSite(t, proto, time.Second, 1000, func(_ http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
			})
			body, rest := io.Pipe()
			t.Cleanup(func() { rest.Close() })
			go func() {
				for range 200 { // 20 s, unless it is given up
					if _, err := rest.Write([]byte("x")); err != nil {
						return
					}
					<-time.After(100 * time.Millisecond)
				}
				rest.Close()
			}()
			resp, err := c.Post(url, "text/plain", body)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusRequestTimeout {
				t.Errorf("status %d, want 408", resp.StatusCode)
			}
		})
	}
}

// What is judged is the rate while the body is waited for: not a client that
// Mattermost keeps waiting, nor one that falls silent for less than a wait.
func TestRateOfBodies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, c := range map[string]struct {
			pieces, each int
			pause, rest  time.Duration
			crawls       bool
		}{
			"a byte each second":           {90, 1, time.Second, 0, true},
			"a byte just in time":          {3, 1, 59 * time.Second, 0, true},
			"little more than the rate":    {90, 510, time.Second, 0, false},
			"a gap":                        {2, 30_000, 50 * time.Second, 0, false},
			"Mattermost is slow":           {90, 10, 10 * time.Millisecond, time.Second, false},
			"slow, but over before a look": {20, 1, time.Second, 0, false},
		} {
			p, _ := newPatient(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/", nil), time.Minute, 500)
			for range c.pieces {
				p.wait(&p.reading)
				time.Sleep(c.pause)
				p.got(c.each, nil)
				time.Sleep(c.rest)
			}
			p.finish()
			if p.stalled() != c.crawls {
				t.Errorf("%s: given up: %v", name, p.stalled())
			}
		}
	})
}

func TestSlowUploadThatMovesArrives(t *testing.T) {
	for _, proto := range []string{"http/1.1", "h2"} {
		t.Run(proto, func(t *testing.T) {
			t.Parallel()
			c, _, url := patientSite(t, proto, 3*time.Second, func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(w, r.Body)
			})
			body, rest := io.Pipe()
			go func() {
				for range 7 { // longer than the limit in all
					<-time.After(500 * time.Millisecond)
					_, _ = rest.Write([]byte("x"))
				}
				rest.Close()
			}()
			resp, err := c.Post(url, "text/plain", body)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if got, err := io.ReadAll(resp.Body); err != nil || string(got) != "xxxxxxx" {
				t.Errorf("echo %q, %v", got, err)
			}
		})
	}
}

func TestDownloadThatNobodyReadsIsGivenUp(t *testing.T) {
	for _, proto := range []string{"http/1.1", "h2"} {
		t.Run(proto, func(t *testing.T) {
			t.Parallel()
			gone := make(chan struct{})
			c, _, url := patientSite(t, proto, 300*time.Millisecond, func(w http.ResponseWriter, r *http.Request) {
				defer close(gone)
				chunk := make([]byte, 64<<10)
				for {
					if _, err := w.Write(chunk); err != nil {
						return
					}
				}
			})
			resp, err := c.Get(url)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			select {
			case <-gone:
			case <-time.After(45 * time.Second):
				t.Fatal("the answer still waits for a client that does not read")
			}
		})
	}
}

func TestQuietStreamStaysOpen(t *testing.T) {
	const limit = time.Second / 2 // no request may take longer to come
	for _, proto := range []string{"http/1.1", "h2"} {
		t.Run(proto, func(t *testing.T) {
			t.Parallel()
			c, _, url := patientSite(t, proto, limit, func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				w.Header().Set("Content-Type", "text/event-stream")
				for range 2 {
					_, _ = io.WriteString(w, "data: x\n\n")
					_ = http.NewResponseController(w).Flush()
					select {
					case <-time.After(3 * limit):
					case <-r.Context().Done():
						return
					}
				}
			})
			for _, method := range []string{http.MethodGet, http.MethodPost} {
				resp, err := c.Do(request(t, method, url, "ask"))
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil || string(got) != "data: x\n\ndata: x\n\n" {
					t.Errorf("%s: %q, %v", method, got, err)
				}
			}
		})
	}
}

// What a handler leaves of a body, net/http reads, and would for ever.
func TestAnnouncedBodyIsNotWaitedFor(t *testing.T) {
	for name, h := range map[string]http.Handler{
		"redirect": redirect("chat.example.com", "443"),
		"early answer": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "no")
		}),
	} {
		t.Run(name, func(t *testing.T) {
			addr := serveSite(t, h, 200*time.Millisecond, 0)
			conn, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(time.Minute))
			mustWrite(t, conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n")
			got, err := io.ReadAll(conn)
			if err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 ") {
				t.Errorf("%q, %v: want an answer and the end", got, err)
			}
		})
	}
}

// It looks like HTTP/2 to a handler and is HTTP/1 to net/http.
func TestPrefaceOfHTTP2IsNoRequest(t *testing.T) {
	addr := serveSite(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("a handler got the preface")
	}), 2*time.Second, 0)
	for _, rest := range []string{"\r\n", "Host: x\r\nContent-Length: 5\r\n\r\n"} {
		conn, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(time.Minute))
		mustWrite(t, conn, "PRI * HTTP/2.0\r\n"+rest)
		got, err := io.ReadAll(conn)
		if err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 505 ") {
			t.Errorf("%q, %v: want 505 and the end", got, err)
		}
	}
}

// A deadline that one request leaves must not fall on the next.
func TestPatienceBeginsAnewWithEachRequest(t *testing.T) {
	const limit = 400 * time.Millisecond
	_, dial, _ := patientSite(t, "http/1.1", limit, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-time.After(2 * limit)
		_, _ = io.WriteString(w, "ok")
	})
	conn := dial()
	in := bufio.NewReader(conn)
	for range 3 {
		mustWrite(t, conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi")
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(resp.Body); err != nil || string(got) != "ok" {
			t.Fatalf("%q, %v", got, err)
		}
		<-time.After(2 * limit)
	}
}
