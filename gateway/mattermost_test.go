package gateway

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// A mattermost stands in for the real one: its ways, its WebSocket with and
// without a trailing slash, files, and a plugin's paths. It can be stopped and
// started again at the same address.
type mattermost struct {
	t    *testing.T
	addr string
	ways ways // as of the next start

	file []byte // what /api/v4/files/1 serves
	gzip []byte // what /static/main.js serves, compressed

	events chan string   // what /plugins/feed/events sends, one by one
	bodies chan string   // what /api/v4/uploads/1 reads, as it arrives
	stall  chan struct{} // holds up /plugins/slow until closed

	mu     sync.Mutex // guards the following
	server *http.Server
	lastIP string
}

// seen is what /plugins/mirror answers: the request as Mattermost got it.
type seen struct {
	Method, Host, URI, Body string
	Header, Trailer         http.Header
	Length                  int64
	Chunked                 bool
}

func startMattermost(t *testing.T) *mattermost {
	t.Helper()
	return startMattermostWith(t, nil)
}

// startMattermostWith is one with other ways.
func startMattermostWith(t *testing.T, edit func(*ways)) *mattermost {
	t.Helper()
	m := &mattermost{
		t: t, addr: "127.0.0.1:0", ways: mattermostWays(),
		file:   bytes.Repeat([]byte("0123456789abcdef"), 8<<10),
		events: make(chan string), bodies: make(chan string), stall: make(chan struct{}),
	}
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, _ = w.Write(m.file)
	_ = w.Close()
	m.gzip = packed.Bytes()
	if edit != nil {
		edit(&m.ways)
	}
	m.start()
	t.Cleanup(m.stop)
	return m
}

func (m *mattermost) url() string { return "http://" + m.addr }

func (m *mattermost) start() {
	m.t.Helper()
	ln, err := net.Listen("tcp", m.addr)
	if err != nil {
		m.t.Fatal(err)
	}
	m.addr = ln.Addr().String()
	server := &http.Server{
		Handler: m.served(m.handler()), ReadTimeout: m.ways.read, WriteTimeout: m.ways.write, IdleTimeout: m.ways.idle,
	}
	m.mu.Lock()
	m.server = server
	m.mu.Unlock()
	go func() { _ = server.Serve(ln) }()
}

// stop ends it as a killed process does: every connection is gone.
func (m *mattermost) stop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	_ = m.server.Close()
}

func (m *mattermost) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/api/v4/system/ping", m.ping)
	mux.HandleFunc("GET /api/v4/config/client", m.clientConfig)
	mux.HandleFunc("GET /api/v4/websocket", m.socket)
	mux.HandleFunc("GET /api/v4/websocket/{$}", m.socket)
	mux.HandleFunc("POST /api/v4/files", m.takeFile)
	mux.HandleFunc("POST /api/v4/uploads/2", m.takeFile)
	mux.HandleFunc("GET /api/v4/files/big", func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "big.bin", time.Unix(1700000000, 0), bytes.NewReader(bigFile()))
	})
	mux.HandleFunc("GET /plugins/ai/stream", serverSent)
	mux.HandleFunc("GET /plugins/page", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, "testdata/browser/mattermost.html") })
	mux.HandleFunc("GET /plugins/focalboard/ws", echo)
	mux.HandleFunc("GET /plugins/gone/ws", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Request-Id", "upstream-id")
		http.Error(w, "blocked origin", http.StatusForbidden)
	})
	mux.HandleFunc("GET /api/v4/files/1", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"v1"`)
		w.Header().Set("Cache-Control", "private, max-age=86400")
		http.ServeContent(w, r, "", time.Unix(1700000000, 0), bytes.NewReader(m.file))
	})
	mux.HandleFunc("GET /static/main.js", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Set("Content-Type", "text/javascript")
		_, _ = w.Write(m.gzip)
	})
	mux.HandleFunc("GET /plugins/feed/events", m.feed)
	mux.HandleFunc("POST /api/v4/uploads/1", m.upload)
	mux.HandleFunc("POST /plugins/refuse", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "not for you", http.StatusUnauthorized) // without reading the body
	})
	mux.HandleFunc("GET /plugins/trailers", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		_, _ = io.WriteString(w, "body")
		w.Header().Set("X-Sum", "42")
	})
	mux.HandleFunc("GET /plugins/strict", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Strict-Transport-Security", "max-age=1")
	})
	mux.HandleFunc("GET /plugins/cookie", func(w http.ResponseWriter, _ *http.Request) {
		http.SetCookie(w, &http.Cookie{Name: "MMAUTHTOKEN", Value: "hunter2"})
	})
	mux.HandleFunc("GET /plugins/slow", func(w http.ResponseWriter, _ *http.Request) { <-m.stall })
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<title>Mattermost</title>") })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.RequestURI, "/plugins/mirror/") { // ServeMux would clean the path
			mirror(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// echo is a WebSocket that refuses a foreign Origin, as Mattermost does, which
// is why the Host header must arrive as the browser sent it.
func echo(w http.ResponseWriter, r *http.Request) { echoTo(w, r, nil) }

func echoTo(w http.ResponseWriter, r *http.Request, o *websocket.AcceptOptions) {
	conn, err := websocket.Accept(w, r, o)
	if err != nil {
		return
	}
	defer func() { _ = conn.CloseNow() }()
	conn.SetReadLimit(1 << 20)
	for {
		kind, msg, err := conn.Read(r.Context())
		if err != nil {
			return
		}
		if string(msg) == "bye" {
			_ = conn.Close(websocket.StatusNormalClosure, "")
			return
		}
		if err := conn.Write(r.Context(), kind, msg); err != nil {
			return
		}
	}
}

func mirror(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	_ = json.NewEncoder(w).Encode(seen{
		Method: r.Method, Host: r.Host, URI: r.RequestURI, Body: string(body), Header: r.Header, Trailer: r.Trailer,
		Length: r.ContentLength, Chunked: len(r.TransferEncoding) > 0,
	})
}

func (m *mattermost) feed(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/octet-stream") // nothing that a proxy might flush for its type
	w.Header().Set("Content-Length", "15")
	for range 3 {
		select {
		case e := <-m.events:
			_, _ = io.WriteString(w, e)
			_ = http.NewResponseController(w).Flush()
		case <-r.Context().Done():
			return
		}
	}
}

func (m *mattermost) upload(w http.ResponseWriter, r *http.Request) {
	buf := make([]byte, 1024)
	for {
		n, err := r.Body.Read(buf)
		if n > 0 {
			m.bodies <- string(buf[:n])
		}
		if err != nil {
			break
		}
	}
	_, _ = fmt.Fprint(w, "stored")
}

// ask sends a request and reads the answer, which must come.
func ask(t *testing.T, c *http.Client, r *http.Request) (*http.Response, string) {
	t.Helper()
	resp, err := c.Do(r)
	if err != nil {
		t.Fatalf("%s %s: %v", r.Method, r.URL, err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: read answer: %v", r.Method, r.URL, err)
	}
	return resp, string(body)
}

func request(t *testing.T, method, url, body string, headers ...string) *http.Request {
	t.Helper()
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	r, err := http.NewRequestWithContext(t.Context(), method, url, reader)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return r
}
