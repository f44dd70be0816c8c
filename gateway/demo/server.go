package demo

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"sallyport/sfu/peer"
	"sallyport/sfu/wire"
)

// maxSockets bounds the WebSockets, seated or not.
const maxSockets = maxMembers + 56

// goodbye is how long Run waits for browsers to take its last words.
const goodbye = time.Second

// Config is what the demo needs to know of the gateway it stands behind.
type Config struct {
	// APIURL is the rtcd API, for example http://127.0.0.1:8045. Required.
	APIURL string
	// ClientID and AuthKey are the credentials for it. Required.
	ClientID, AuthKey string
	// ICEServers makes the servers a browser may use, with credentials for
	// the given user name. Nil: none, and only direct paths work.
	ICEServers func(user string) []ICEServer
	// SiteURL is where browsers find the demo, told as Mattermost tells it. Empty:
	// it is not.
	SiteURL string
	// Media are the ports of the SFU as browsers see them. The page forces a
	// direct path by looking for them among the SFU's candidates.
	Media Ports
	// Logger takes what happens; nil discards it.
	Logger *slog.Logger
}

// Ports are the media ports of the SFU.
type Ports struct {
	UDP int `json:"udp"`
	TCP int `json:"tcp"`
}

// An ICEServer is one entry of a browser's RTCConfiguration.iceServers.
type ICEServer struct {
	URLs       []string `json:"urls"` // turn:, turns: or stun:
	Username   string   `json:"username,omitempty"`
	Credential string   `json:"credential,omitempty"`
}

// A Server is the demo application: the page and the rooms behind it. It works
// while Run does.
type Server struct {
	config  Config          // set once
	log     *slog.Logger    // set once
	hub     *hub            // set once
	link    *linkKeeper     // set once
	closing context.Context // set once; ends when Run does. A context, because it ends requests
	close   context.CancelFunc

	mu      sync.Mutex // guards the following
	sockets int        // WebSockets being served
	idle    chan struct{}
	closed  bool
}

// New prepares a Server; nothing is dialled before Run.
func New(c Config) (*Server, error) {
	if c.APIURL == "" || c.ClientID == "" || c.AuthKey == "" {
		return nil, errors.New("configure demo: the API's URL, client ID and key are required")
	}
	if c.ICEServers == nil {
		c.ICEServers = func(string) []ICEServer { return nil }
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{config: c, log: c.Logger, hub: newHub(c.Logger), idle: make(chan struct{}, 1)}
	s.closing, s.close = context.WithCancel(context.Background())
	s.link = &linkKeeper{dial: s.dial, changed: s.linkChanged, log: c.Logger}
	return s, nil
}

// dial opens the plugin's half of the rtcd link.
func (s *Server) dial(ctx context.Context) (link, error) {
	l, err := peer.Dial(ctx, peer.LinkConfig{
		URL:      s.config.APIURL,
		ClientID: s.config.ClientID,
		AuthKey:  s.config.AuthKey,
		Handle:   s.hub.fromSFU,
		Logger:   s.log,
	})
	if err != nil {
		return nil, err
	}
	return l, nil
}

// linkChanged tells the browsers, and a new link which sessions it speaks for:
// the SFU would otherwise go on speaking to the old one.
func (s *Server) linkChanged(up bool) {
	for _, session := range s.hub.linkChanged(up) {
		if !up {
			continue
		}
		if err := s.link.send(wire.Envelope{Type: wire.TypeReconnect, Session: session}); err != nil {
			s.log.Warn("reconnect not sent", "session", session, "err", err)
			return
		}
	}
}

// Handler serves the page at /, its configuration at /demo/config, its signalling
// at /demo/ws, and, where Mattermost does, that it lives and where it is.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /", page())
	mux.HandleFunc("GET /demo/config", s.serveConfig)
	mux.HandleFunc("GET /demo/ws", s.serveSocket)
	mux.HandleFunc("GET /api/v4/system/ping", servePing)
	if s.config.SiteURL != "" {
		mux.HandleFunc("GET /api/v4/config/client", s.serveClientConfig)
	}
	return mux
}

// Run keeps the link to the SFU until ctx ends. Then it makes everybody leave,
// waits for their sockets and returns nil. It may be called once.
func (s *Server) Run(ctx context.Context) error {
	linkCtx, stopLink := context.WithCancel(context.WithoutCancel(ctx))
	defer stopLink()
	linkDone := make(chan struct{})
	go func() {
		defer close(linkDone)
		s.link.run(linkCtx)
	}()
	<-ctx.Done()

	for _, session := range s.hub.close() { // while the link still lives
		if err := s.link.send(wire.Envelope{Type: wire.TypeLeave, Session: session}); err != nil {
			break // the SFU ends sessions without a participant by itself
		}
	}
	s.waitSockets()
	stopLink()
	<-linkDone
	return nil
}

// enter counts a new WebSocket in, unless there are too many or Run has ended.
func (s *Server) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.sockets >= maxSockets {
		return false
	}
	s.sockets++
	return true
}

func (s *Server) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sockets--
	if s.closed && s.sockets == 0 {
		s.idle <- struct{}{}
	}
}

// waitSockets gives the WebSockets a moment to say goodbye, ends those that
// remain, and returns when the last handler has.
func (s *Server) waitSockets() {
	s.mu.Lock()
	s.closed = true
	busy := s.sockets > 0
	s.mu.Unlock()
	defer s.close()
	if !busy {
		return
	}
	select {
	case <-s.idle:
	case <-time.After(goodbye):
		s.close()
		<-s.idle
	}
}
