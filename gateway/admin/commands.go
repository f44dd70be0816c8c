package admin

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"strings"
)

// maxCommand bounds the body of a command, in bytes.
const maxCommand = 64 << 10

// Commands are what a gateway can be told to do, over its socket and nowhere else.
type Commands struct {
	// Drain takes an upstream out of service, even the last one if last is set,
	// or puts it back.
	Drain func(upstream string, drained, last bool) error
	// Reload reads the configuration again. What it returns is sent as JSON. An
	// error may have several lines; then nothing has changed. nil: there is no
	// configuration to read.
	Reload func() (any, error)
}

// A Fault is the answer to a command that was not carried out.
type Fault struct {
	Errors []string `json:"errors"`
}

// RunCommands serves the commands on ln until ctx ends and closes it:
//
//	GET  /upstreams                                             []Upstream
//	POST /upstreams/drain    {"upstream": URL, "last": false}   []Upstream
//	POST /upstreams/undrain  {"upstream": URL}                  []Upstream
//	POST /reload                                                what Commands.Reload returns
//
// Who can connect may do all of it: ln is for the administrator alone.
func (s *Server) RunCommands(ctx context.Context, ln net.Listener) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /upstreams", func(w http.ResponseWriter, _ *http.Request) { s.reply(w, s.opts.Status().Upstreams) })
	mux.HandleFunc("POST /upstreams/drain", func(w http.ResponseWriter, r *http.Request) { s.drain(w, r, true) })
	mux.HandleFunc("POST /upstreams/undrain", func(w http.ResponseWriter, r *http.Request) { s.drain(w, r, false) })
	mux.HandleFunc("POST /reload", s.reload)
	return s.serve(ctx, ln, mux)
}

func (s *Server) drain(w http.ResponseWriter, r *http.Request, drained bool) {
	var command struct {
		Upstream string
		Last     bool
	}
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxCommand)).Decode(&command)
	if err == nil {
		err = s.opts.Commands.Drain(command.Upstream, drained, command.Last)
	}
	if err != nil {
		s.refuse(w, err.Error())
		return
	}
	s.reply(w, s.opts.Status().Upstreams)
}

func (s *Server) reload(w http.ResponseWriter, _ *http.Request) {
	if s.opts.Commands.Reload == nil {
		s.refuse(w, "this gateway has no configuration to reload")
		return
	}
	done, err := s.opts.Commands.Reload()
	if err != nil {
		s.refuse(w, err.Error())
		return
	}
	s.reply(w, done)
}

func (s *Server) refuse(w http.ResponseWriter, text string) {
	w.WriteHeader(http.StatusUnprocessableEntity)
	s.reply(w, Fault{strings.Split(text, "\n")})
}

func (s *Server) reply(w http.ResponseWriter, value any) {
	if err := json.NewEncoder(w).Encode(value); err != nil {
		s.opts.Logger.Debug("answer to a command not sent", "err", err)
	}
}
