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
//	socket ─> reader ─> mux: whose is it? ─> media: decrypt ─> up ┐
//	          └──────── end of the read batch: ───────────────────┘─> for each down: header, encrypt ─> outbox ─> socket
//
// No goroutine but the reader's has a part in it, no lock that others hold for
// long, and no allocation. What is rare (STUN, DTLS, RTCP) goes through pion.
//
//	media     the RTP of one session: its keys, what comes in by SSRC
//	outgoing  one SSRC to one receiver: header, encryption, what may be sent again
//	reporter  the RTCP of all sessions that goes out again and again
//	way       how datagrams reach a participant: UDP, TCP or the TURN server's hairpin
//
// # Layers
//
// A screen that comes in several encodings is one source. A down of it has a
// choice: which encoding, and the numbering that makes one stream of them. What
// the way to the receiver carries is measured by its congestion, the decision is
// package steer's.
//
//	up l, up h ─> encoding.forward ─> for each down: choice ─> numbers ─> outgoing, congestion
//	receiver's reports ─> congestion ─> steer.Policy ─> choice.target ─> key frame request
//
// # Who owns what
//
// A Server owns the sockets and the index of calls. A call has one mutex, which
// guards who is in it and what they publish. A Session has one goroutine, run,
// that owns its negotiation. What comes in is guarded by media.mu, a track's batch
// by up.mu, what goes out on an SSRC by outgoing.mu; they are taken in that order,
// with choice.mu before the last. Nobody waits for another participant: what is
// slow loses its own packets.
//
// The package knows no WebSocket, no MessagePack frame and no credential: the
// front door (package rtcd) brings members in through Server.Join and is spoken
// to through Signal.
package sfu
