// Package peer is the client half of everything: what the Calls plugin and a
// participant's browser do together, without either. The demo uses its Link,
// the doctor, sallyload and the end-to-end tests use whole participants.
//
//	            Link (one per plugin)                     server
//	Mux ──── WebSocket, Basic auth, envelopes ────────── rtcd API :8045
//	 │ by session
//	Peer ─── join, first offer, candidates ──────────────────┘
//	 │
//	 └────── ICE, DTLS, SRTP, data channel ───────────── media   :8443, TURN :443
//
// The words: a Link is the plugin's connection; a Mux shares it among many
// peers; a Peer is one participant with one PeerConnection; a Source makes the
// packets it publishes and a Track counts the packets it receives. Sources
// stamp each packet with its number and the time, so that a Track knows what
// was lost, what came twice and how long it took.
//
// Offers and answers. One goroutine per peer, run, applies what the server
// says, in order. Methods that change what is published first take the server's
// signalling lock, because pion/webrtc v3 cannot roll back an offer of its own:
// whoever offers without the lock and collides with an offer of the server has
// lost the connection.
//
//	caller                          run                         server
//	lock ───────────────────────────────────────────────────────> 07
//	        <──────────────────── lock granted ──────────────────  07 true
//	add track, offer ───────────────────────────────────────────> 03
//	        <─── applied ──────── answer ────────────────────────  03
//	unlock ─────────────────────────────────────────────────────> 08
package peer
