package rtcd

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"unicode"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"sallyport/sfu"
)

// maxBody bounds the bodies of requests, in bytes.
const maxBody = 64 << 10

// A route is what answers one path. Any other method is answered as an unknown
// path is.
type route struct {
	method string // "" = any
	handle http.HandlerFunc
}

// routeTable returns all routes but /calls/…. A table of exact paths, because
// http.ServeMux redirects where rtcd answers 404.
func (s *Server) routeTable(metrics prometheus.Gatherer) map[string]route {
	table := map[string]route{
		"/version":    {http.MethodGet, s.handleVersion},
		"/system":     {http.MethodGet, s.handleSystem},
		"/register":   {http.MethodPost, s.handleRegister},
		"/unregister": {http.MethodPost, s.handleUnregister},
		"/login":      {http.MethodPost, s.handleLogin},
		"/ws":         {http.MethodGet, s.handleWebSocket},
	}
	if metrics != nil {
		table["/metrics"] = route{"", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}).ServeHTTP}
	}
	return table
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	if !s.requests.begin() {
		http.Error(w, "shutting down", http.StatusServiceUnavailable)
		return
	}
	defer s.requests.running.Done()
	defer s.confess(r)
	if r.Method == http.MethodPost && r.Header.Get("Origin") != "" {
		// No browser has business here, but one on this machine can be made to
		// register clients by any page it shows.
		reply(w, http.StatusForbidden, map[string]string{"error": "not for browsers"})
		return
	}
	if route, known := s.routes[r.URL.Path]; known && (route.method == "" || route.method == r.Method) {
		route.handle(w, r)
		return
	}
	// /calls/{call}/sessions and /calls/{call}/sessions/{session}
	parts := strings.Split(r.URL.Path, "/")
	if r.Method == http.MethodGet && len(parts) >= 4 && parts[1] == "calls" && parts[2] != "" && parts[3] == "sessions" {
		switch {
		case len(parts) == 4:
			s.handleSessions(w, r, parts[2])
			return
		case len(parts) == 5 && parts[4] != "":
			s.handleSession(w, r, parts[2], parts[4])
			return
		}
	}
	http.NotFound(w, r)
}

func (s *Server) handleVersion(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]string{
		"buildDate":    s.version.Date,
		"buildVersion": compatibleVersion(s.version.Number),
		"buildHash":    s.version.Hash,
		"goVersion":    runtime.Version(),
		"goOS":         runtime.GOOS,
		"goArch":       runtime.GOARCH,
	})
}

// compatibleVersion returns the version of rtcd whose interface this is, with
// our own as its build metadata, which semver ignores when it compares. The
// plugin refuses anything that is not semver.
func compatibleVersion(number string) string {
	ids := strings.FieldsFunc(number, func(c rune) bool {
		return c != '-' && (c > unicode.MaxASCII || !unicode.IsLetter(c) && !unicode.IsDigit(c))
	})
	return "v1.2.6+" + strings.Join(append([]string{"sallyport"}, ids...), ".")
}

func (s *Server) handleSystem(w http.ResponseWriter, _ *http.Request) {
	if s.draining.Load() {
		reply(w, http.StatusServiceUnavailable, map[string]string{"error": "draining"})
		return
	}
	writeJSON(w, http.StatusOK, map[string]float64{"cpu_load": s.load.load()})
}

func (s *Server) handleRegister(w http.ResponseWriter, r *http.Request) {
	if !s.cfg.SelfRegistration {
		// A client's own credential is no permission to make others.
		client, err := s.accounts.authenticate(r)
		if err == nil {
			err = errUnauthorized
		}
		s.refuse(r, client, err)
		reply(w, http.StatusUnauthorized, map[string]string{"error": err.Error()})
		return
	}
	body, ok := readBody(w, r)
	if !ok {
		return
	}
	client := body["clientID"]
	if err := s.accounts.register(r.Context(), client, body["authKey"]); err != nil {
		reply(w, http.StatusBadRequest, map[string]string{"error": "registration failed: " + err.Error()})
		return
	}
	s.log.Info("client registered itself", "client", client, "remote", r.RemoteAddr)
	reply(w, http.StatusCreated, map[string]string{"clientID": client})
}

func (s *Server) handleUnregister(w http.ResponseWriter, r *http.Request) {
	if !s.cfg.SelfRegistration {
		reply(w, http.StatusForbidden, map[string]string{"error": "unregister not enabled"})
		return
	}
	client, err := s.accounts.authenticate(r)
	if err != nil {
		s.refuse(r, client, err)
		reply(w, http.StatusUnauthorized, map[string]string{"error": err.Error()})
		return
	}
	body, ok := readBody(w, r)
	if !ok {
		return
	}
	switch body["clientID"] {
	case client:
	case "":
		reply(w, http.StatusBadRequest, map[string]string{"error": "client id should not be empty"})
		return
	default:
		reply(w, http.StatusForbidden, map[string]string{"error": "client id not valid"})
		return
	}
	if err := s.accounts.unregister(client); err != nil {
		reply(w, http.StatusBadRequest, map[string]string{"error": "unregister failed: " + err.Error()})
		return
	}
	s.log.Info("client unregistered itself", "client", client, "remote", r.RemoteAddr)
	s.conns.stopClient(client)
	s.metrics.forget(client)
	s.media.Forget(client)
	reply(w, http.StatusOK, map[string]string{})
}

func (s *Server) handleLogin(w http.ResponseWriter, r *http.Request) {
	body, ok := readBody(w, r)
	if !ok {
		return
	}
	client := body["clientID"]
	token, err := s.accounts.login(r.Context(), client, body["authKey"])
	if err != nil {
		s.refuse(r, client, err)
		reply(w, http.StatusUnauthorized, map[string]string{"error": "login failed: " + err.Error()})
		return
	}
	reply(w, http.StatusOK, map[string]string{"bearerToken": token})
}

// member is a session as the session API shows it.
type member struct {
	GroupID, CallID, UserID, SessionID string
	Props                              props
}

// props that the join did not carry are null.
type props struct {
	AV1         *bool  `json:"av1Support"`
	Channel     string `json:"channelID"`
	DCSignaling *bool  `json:"dcSignaling"`
}

func newMember(m sfu.Member) member {
	out := member{GroupID: m.Group, CallID: m.Call, UserID: m.User, SessionID: m.Session, Props: props{Channel: m.Channel}}
	if m.AV1Set {
		out.Props.AV1 = &m.AV1
	}
	if m.DCSet {
		out.Props.DCSignaling = &m.DCSignaling
	}
	return out
}

func (s *Server) handleSessions(w http.ResponseWriter, r *http.Request, call string) {
	const failed = "failed to get session configs"
	members, ok := s.sessions(w, r, call, failed)
	if !ok {
		return
	}
	out := make([]member, 0, len(members))
	for _, m := range members {
		out = append(out, newMember(m))
	}
	if len(out) == 0 { // the call ended just now
		http.Error(w, failed+": no sessions found", http.StatusNotFound)
		return
	}
	writeJSON(w, http.StatusOK, out)
}

func (s *Server) handleSession(w http.ResponseWriter, r *http.Request, call, session string) {
	const failed = "failed to get session config"
	members, ok := s.sessions(w, r, call, failed)
	if !ok {
		return
	}
	for _, m := range members {
		if m.Session == session {
			writeJSON(w, http.StatusOK, newMember(m))
			return
		}
	}
	http.Error(w, failed+": session not found", http.StatusNotFound)
}

// sessions returns the members of a call of the client that asks, or answers
// the request itself. Only a call that is known to be over is answered with
// 404, for the plugin then ends it in its database.
func (s *Server) sessions(w http.ResponseWriter, r *http.Request, call, failed string) ([]sfu.Member, bool) {
	client, err := s.accounts.authenticate(r)
	if err != nil {
		s.refuse(r, client, err)
		http.Error(w, "unauthorized", http.StatusUnauthorized)
		return nil, false
	}
	members, err := s.media.Sessions(client, call)
	switch {
	case err == nil:
		return members, true
	case errors.Is(err, sfu.ErrNoGroup):
		http.Error(w, failed+": group not found", http.StatusNotFound)
	case errors.Is(err, sfu.ErrNoCall):
		http.Error(w, failed+": call not found", http.StatusNotFound)
	default:
		http.Error(w, fmt.Sprintf("%s: %v", failed, err), http.StatusInternalServerError)
	}
	return nil, false
}

// refuse counts a refused credential, and logs some of them: the operator must
// learn of a plugin with a wrong key, and a flood must not fill the disk.
func (s *Server) refuse(r *http.Request, client string, err error) {
	s.metrics.refused.Inc()
	if user, _, ok := r.BasicAuth(); ok && client == "" {
		client = user
	}
	s.refusals.Do(func() {
		s.log.Warn("refused credential", "client", fmt.Sprintf("%.64s", client), "remote", r.RemoteAddr, "path", r.URL.Path, "err", err)
	})
}

// readBody reads a JSON object of strings, or answers the request itself.
func readBody(w http.ResponseWriter, r *http.Request) (map[string]string, bool) {
	var body map[string]string
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&body)
	if err == nil {
		return body, true
	}
	status := http.StatusBadRequest
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		status = http.StatusRequestEntityTooLarge
	}
	reply(w, status, map[string]string{"error": err.Error()})
	return nil, false
}

// reply answers with an object whose values are all strings, the status among
// them: the plugin decodes nothing else.
func reply(w http.ResponseWriter, status int, body map[string]string) {
	body["code"] = strconv.Itoa(status)
	writeJSON(w, status, body)
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // fails only if the peer is gone
}
