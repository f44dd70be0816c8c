package demo

import (
	"embed"
	"encoding/json"
	"io"
	"io/fs"
	"net/http"
	"path"
)

//go:embed page
var pageFiles embed.FS

// pageTypes are the media types of the page's files. The system's own table is
// not asked: a module served as anything but JavaScript does not load.
var pageTypes = map[string]string{
	"":      "text/html; charset=utf-8",
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".mjs":  "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

// contentPolicy allows the page its own files and nothing else: no inline
// script or style, no other host, no frame around it.
const contentPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; " +
	"connect-src 'self'; media-src 'self' blob: mediastream:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// page serves the embedded files.
func page() http.Handler {
	files, err := fs.Sub(pageFiles, "page")
	if err != nil {
		panic("demo: " + err.Error()) // the name above is in the binary
	}
	server := http.FileServerFS(files)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		if t := pageTypes[path.Ext(r.URL.Path)]; t != "" {
			h.Set("Content-Type", t)
		}
		h.Set("Content-Security-Policy", contentPolicy)
		h.Set("Permissions-Policy", "camera=(self), microphone=(self), display-capture=(self), autoplay=(self)")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-cache")
		server.ServeHTTP(w, r)
	})
}

// serveConfig answers what a page needs before it joins. The credentials in it
// are made for this one answer.
func (s *Server) serveConfig(w http.ResponseWriter, _ *http.Request) {
	answer := struct {
		ICEServers []ICEServer `json:"iceServers"`
		Media      Ports       `json:"media"`
		MaxText    int         `json:"maxText"`
	}{s.config.ICEServers(newID()), s.config.Media, maxText}
	if answer.ICEServers == nil {
		answer.ICEServers = []ICEServer{}
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if err := json.NewEncoder(w).Encode(answer); err != nil {
		s.log.Debug("config not sent", "err", err)
	}
}

// serveClientConfig says where the demo is, as Mattermost does for everybody.
func (s *Server) serveClientConfig(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(map[string]string{"SiteURL": s.config.SiteURL}); err != nil {
		s.log.Debug("client config not sent", "err", err)
	}
}

// servePing answers the gateway's health check.
func servePing(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, `{"status":"OK"}`)
}
