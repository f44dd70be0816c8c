// Package sfu is the selective forwarding unit (RFC 7667 §3.7): it takes each
// participant's audio and video once and sends it on to everybody else in the
// call, unchanged but for the address on the envelope.
//
// # Words
//
//	group    one installation of Mattermost; groups never meet
//	call     the sessions that hear and see each other
//	session  one participant's connection: ICE, DTLS, SRTP, a data channel
//	up       one track a participant publishes
//	down     one up on its way to one other participant
//	fanout   the downs of one up
//	class    what an up is: voice, screen, screen-audio or video
//	layer    one of several encodings (ups) of one screen; a down sends one of them
//	signal   how a session reaches its participant before its data channel does
//
// # The way of a packet
//
//	socket ─> mux: whose is it? ─> ICE agent, SRTP ─> up.forward ─> for each down: header ─> SRTP ─> mux ─> socket
//
// # Layers
//
// A screen that comes in several encodings is one source. A down of it has a
// choice: which encoding, and the numbering that makes one stream of them. What
// the way to the receiver carries is measured by its congestion, the decision is
// package steer's.
//
//	up l, up h ─> encoding.forward ─> for each down: choice ─> numbers ─> congestion ─> SRTP
//	receiver's reports ─> congestion ─> steer.Policy ─> choice.target ─> key frame request
//
// # Who owns what
//
// A Server owns the sockets and the index of calls. A call has one mutex, which
// guards who is in it and what they publish. A Session has one goroutine, run,
// that owns its negotiation; an up has one goroutine that reads it. No goroutine
// waits for another participant: what is slow loses its own packets.
//
// The package knows no WebSocket, no MessagePack frame and no credential: the
// front door (package rtcd) brings members in through Server.Join and is spoken
// to through Signal.
package sfu
