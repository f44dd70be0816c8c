package gateway

import (
	"crypto/rand"
	_ "embed"
	"encoding/json"
	"html/template"
	"net/http"
	"strconv"
	"strings"
)

// A failure is what we say when we must answer in Mattermost's place.
type failure struct {
	ID      string // of Mattermost's own error shape, for /api/
	Title   string
	Message string
	Retry   int // seconds after which the page loads itself again; 0: never
}

// failures by HTTP status.
var failures = map[int]failure{
	http.StatusBadGateway: {
		ID: "sallyport.upstream.unreachable", Title: "Mattermost is not answering", Retry: 5,
		Message: "The server may be restarting. This page tries again by itself.",
	},
	http.StatusServiceUnavailable: {
		ID: "sallyport.upstream.maintenance", Title: "Mattermost is under maintenance", Retry: 30,
		Message: "Its administrator has taken it out of service for now. This page tries again by itself.",
	},
	http.StatusGatewayTimeout: {
		ID: "sallyport.upstream.timeout", Title: "Mattermost took too long",
		Message: "The server did not answer in time. Please try again.",
	},
	http.StatusBadRequest: {
		ID: "sallyport.request.malformed", Title: "The request is malformed",
		Message: "It is not what HTTP allows.",
	},
	http.StatusForbidden: {
		ID: "sallyport.client_certificate.refused", Title: "A client certificate is needed",
		Message: "This server admits only browsers and apps that have a certificate it accepts. Please ask its administrator for one.",
	},
	http.StatusRequestTimeout: {
		ID: "sallyport.client.timeout", Title: "The request did not arrive",
		Message: "Its rest never came. Please check the connection and try again.",
	},
	http.StatusRequestURITooLong: {
		ID: "sallyport.url.too_long", Title: "That address is too long",
		Message: "The address is longer than this server allows.",
	},
	http.StatusRequestHeaderFieldsTooLarge: {
		ID: "sallyport.header.too_large", Title: "The request is too large",
		Message: "Its header is larger than this server allows. Deleting the cookies of this site may help.",
	},
	http.StatusTooManyRequests: {
		ID: "sallyport.limit.reached", Title: "Too many requests",
		Message: "Your network address has made more requests than this server allows. Please wait a little and try again.",
	},
	http.StatusRequestEntityTooLarge: {
		ID: "sallyport.body.too_large", Title: "That is too large",
		Message: "The upload is larger than this server allows.",
	},
}

// shutOut is for those whom the access section keeps out.
var shutOut = failure{
	ID: "sallyport.access.denied", Title: "Access is restricted",
	Message: "The administrator of this server does not let you in here from where you are.",
}

//go:embed failure.html
var failureHTML string

var failurePage = template.Must(template.New("failure").Parse(failureHTML))

// newRequestID makes an id of the same shape as Mattermost's: 26 letters and
// digits. It is what a user quotes and an administrator searches the log for.
func newRequestID() string { return strings.ToLower(rand.Text()) }

// writeFailure answers r with the failure of status: a page for people, the
// error object of Mattermost's API for programs. status must be in failures.
func writeFailure(w http.ResponseWriter, r *http.Request, status int, id string) {
	writePage(w, r, failures[status], status, id)
}

func writePage(w http.ResponseWriter, r *http.Request, f failure, status int, id string) {
	h := w.Header()
	h.Set("X-Request-Id", id)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if f.Retry > 0 {
		h.Set("Retry-After", strconv.Itoa(f.Retry))
	}
	if wantsJSON(r) {
		h.Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(struct { // the client may be gone; there is nobody else to tell
			ID      string `json:"id"`
			Message string `json:"message"`
			Request string `json:"request_id"`
			Status  int    `json:"status_code"`
		}{f.ID, f.Title + ". " + f.Message, id, status})
		return
	}
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'self'")
	w.WriteHeader(status)
	if r.Method != http.MethodGet {
		f.Retry = 0 // in the page
	}
	_ = failurePage.Execute(w, struct {
		failure
		Request, Status string
	}{f, id, strconv.Itoa(status)})
}

func wantsJSON(r *http.Request) bool {
	accept := r.Header.Get("Accept")
	return strings.HasPrefix(r.URL.Path, "/api/") || strings.Contains(r.URL.Path, "/api/v") || // SiteURL may have a path
		strings.Contains(accept, "application/json") && !strings.Contains(accept, "text/html")
}
