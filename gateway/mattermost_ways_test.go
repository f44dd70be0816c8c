package gateway

import (
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// ways are those of Mattermost that a proxy must be right for. Its defaults are
// in mattermostWays; a test that cannot wait scales the times.
type ways struct {
	read, write, idle time.Duration // ServiceSettings.ReadTimeout, WriteTimeout, IdleTimeout
	siteURL           string        // the WebSocket's Origin must equal it; "": the request's own host
	sub               string        // path of siteURL
	maxFile           int64         // FileSettings.MaxFileSize
	trusted           string        // ServiceSettings.TrustedProxyIPHeader
}

func mattermostWays() ways {
	return ways{read: 300 * time.Second, write: 300 * time.Second, idle: 60 * time.Second, maxFile: 100 << 20, trusted: "X-Forwarded-For"}
}

// appError is how Mattermost answers what it does not like.
func appError(w http.ResponseWriter, status int, id, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{
		"id": id, "message": message, "detailed_error": "", "request_id": w.Header().Get("X-Request-Id"), "status_code": status,
	})
}

// served wraps the routes in what Mattermost does with every request.
func (m *mattermost) served(routes http.Handler) http.Handler {
	inner := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Request-Id", newRequestID())
		w.Header().Set("X-Version-Id", "11.0.0")
		m.mu.Lock()
		m.lastIP = m.addressOf(r)
		m.mu.Unlock()
		routes.ServeHTTP(w, r)
	})
	if m.ways.sub == "" {
		return inner
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			http.Redirect(w, r, m.ways.sub, http.StatusFound)
			return
		}
		http.StripPrefix(m.ways.sub, inner).ServeHTTP(w, r)
	})
}

// addressOf is who Mattermost takes the client for: the leftmost address of the
// header it trusts, whoever wrote it.
func (m *mattermost) addressOf(r *http.Request) string {
	first, _, _ := strings.Cut(r.Header.Get(m.ways.trusted), ",")
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	return cmp.Or(strings.TrimSpace(first), host)
}

// clientIP is who sent the last request.
func (m *mattermost) clientIP() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.lastIP
}

// shutdown ends it as Mattermost does when told to: what is under way has one
// second.
func (m *mattermost) shutdown() {
	m.mu.Lock()
	defer m.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = m.server.Shutdown(ctx)
	_ = m.server.Close()
}

func (m *mattermost) ping(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		http.NotFound(w, r)
		return
	}
	if r.FormValue("get_server_status") != "" {
		m.t.Error("somebody asks for get_server_status, which writes to the database")
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, `{"ActiveSearchBackend":"database","AndroidLatestVersion":"","AndroidMinVersion":"","IosLatestVersion":"","IosMinVersion":"","status":"OK"}`)
}

// clientConfig is compressed for whoever takes that, as every answer of the API.
func (m *mattermost) clientConfig(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Vary", "Accept-Encoding")
	out := io.Writer(w)
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		defer func() { _ = z.Close() }()
		out = z
	}
	_ = json.NewEncoder(out).Encode(map[string]string{"SiteURL": m.ways.siteURL, "Version": "11.0.0", "Padding": strings.Repeat("x", 4096)})
}

// socket refuses a foreign Origin with the words of Mattermost and its library.
func (m *mattermost) socket(w http.ResponseWriter, r *http.Request) {
	scheme, host, _ := strings.Cut(r.Header.Get("Origin"), "://")
	site := cmp.Or(m.ways.siteURL, scheme+"://"+r.Host)
	if host != "" && scheme+"://"+host != strings.TrimSuffix(site, m.ways.sub) {
		w.Header().Set("Sec-Websocket-Version", "13")
		http.Error(w, http.StatusText(http.StatusForbidden), http.StatusForbidden)
		appError(discardHeader{w}, http.StatusBadRequest, "api.web_socket.connect.upgrade.app_error", "URL Blocked because of CORS. Url: "+r.Header.Get("Origin"))
		return
	}
	echoTo(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
}

// discardHeader is for what comes behind an answer's header.
type discardHeader struct{ http.ResponseWriter }

func (discardHeader) WriteHeader(int) {}

// A stored is the answer to an upload.
type stored struct {
	Bytes int64
	Sum   uint32
}

// takeFile stores nothing, but tells what it would have.
func (m *mattermost) takeFile(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength > m.ways.maxFile {
		appError(w, http.StatusRequestEntityTooLarge, "api.file.upload_file.too_large_detailed.app_error", fmt.Sprintf("Unable to upload file. %d bytes exceeds the maximum allowed %d bytes.", r.ContentLength, m.ways.maxFile))
		return
	}
	sum := crc32.NewIEEE()
	n, err := io.Copy(sum, r.Body)
	if err != nil {
		appError(w, http.StatusBadRequest, "api.file.upload_file.read_request.app_error", "Unable to upload file(s). Error reading or parsing request data.")
		return
	}
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(stored{n, sum.Sum32()})
}

// bigSize is more than the kernel keeps for a connection.
const bigSize = 16 << 20

// bigFile is what /api/v4/files/big serves.
var bigFile = sync.OnceValue(func() []byte { return pattern(bigSize) })

// serverSent is an answer of small events without length or end.
func serverSent(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	for i := 0; ; i++ {
		_, _ = fmt.Fprintf(w, "data: %d\n\n", i)
		_ = http.NewResponseController(w).Flush()
		select {
		case <-time.After(20 * time.Millisecond):
		case <-r.Context().Done():
			return
		}
	}
}

// pattern is n bytes of which none of the usual faults goes unseen.
func pattern(n int) []byte {
	p := make([]byte, n)
	x := uint32(1)
	for i := range p {
		x = x*1664525 + 1013904223
		p[i] = byte(x >> 24)
	}
	return p
}
