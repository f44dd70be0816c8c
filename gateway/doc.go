// Package gateway is the whole of Sallyport in one process: it opens every
// socket, gives each to the part that understands it, and stops them in order.
//
//	                         Internet
//	      TCP 443               │ UDP 443      UDP+TCP 8443
//	         │                  │                   │
//	     tls.Port ──────┐       └────> sfu.Sockets <┘
//	   by first bytes   │      by first bytes  │
//	    │          │    └─────┐       │        │
//	   HTTP       TURN       ICE     TURN      │
//	    │          │          │       │        │
//	  routes     turn.Server <────────┘        │
//	    │          │          │                │
//	  proxy     Hairpin       └─────> sfu.Server
//	    │          └───── in memory ────>   ^
//	    v                                   │ join, offer, answer
//	Mattermost :8065 ── Calls plugin ──> rtcd.Server :8045
//
// Beside them run the certificates (tls.Certificates), the redirect on port 80,
// the probe of the upstreams, and the admin listener, which is private.
//
// # Three walks
//
// A browser loads Mattermost: TCP 443, tls.Port accepts, a goroutine of its own
// does the handshake and looks at the first bytes, Port.HTTP hands the bare
// *tls.Conn to http.Server (so HTTP/2 works), routes finds the proxy, the proxy
// overwrites what a client may not say about itself (rewrite) and sends the
// request through the keep-alive pool to Mattermost. A 101 answer becomes a
// tunnel, which is counted, ends when idle, and is closed on drain.
//
// A phone behind a strict firewall speaks, a colleague on UDP hears: TLS 443,
// no ALPN, first byte 0x00, Port.TURN, an allocation and a channel that the guard
// of turn.Server has granted, a relay that is a key in Hairpin and no socket, the
// SFU's mux, SRTP, the fan-out of the track, the colleague's UDP 8443.
//
// The Calls plugin joins a user: its WebSocket on :8045, rtcd.Server reads
// "join", sfu.Server.Join makes the session, the offer goes to the session and
// the answer comes back by sfu.Signal.
//
// # Life
//
// New opens every socket, so that a taken port is an error before anything
// serves. Run runs the parts until one fails or its context ends. Drain is the
// kind end: see run.go for the order. Reload swaps what can be swapped: see
// reload.go.
package gateway
