// Package conformance is the executable form of the rtcd protocol: one test for
// each of the 72 statements of its conformance checklist (§9), named by number
// and content, like TestConformance43VoiceReachesOthers. It holds tests only.
//
// The tests see the server from outside. A plugin of theirs speaks over real
// WebSockets, their participants are real WebRTC peers (pion) on the loopback
// interface, some of them behind a relay that loses packets, narrows the road,
// falls dead or changes ICE roles:
//
//	plugin ── HTTP, /ws ───────────────┐
//	                                 server
//	guest ── ICE, DTLS, RTP, SCTP ─────┤
//	guest ── ICE … ── relay ───────────┘
//
// # Against Sallyport
//
//	go test ./sfu/... -run Conformance
//
// builds the binary and runs `sallyport serve` with a configuration file on free
// ports, as the product is started. Statements about a restart, the drain or
// another configuration start a server of their own. A line at the end tells
// what passed and what was skipped and why; -v shows it. What
// GOFLAGS says, such as -race, goes for the binary too. With
// SALLYPORT_CONFORMANCE_BINARY=/path/of/sallyport nothing is built.
//
// # Against another server
//
//	SALLYPORT_CONFORMANCE_TARGET=http://rtcd.example:8045 \
//	SALLYPORT_CONFORMANCE_CLIENT=mattermost:KEY \
//	    go test ./sfu/conformance -v -count=1
//
// points the same tests at a server that is already running. It must let this
// host reach its media ports. Without SALLYPORT_CONFORMANCE_CLIENT (client ID and
// auth key) the suite registers a client of its own, for which the server needs
// self-registration; statements that need a second client are skipped where it
// is off. Statements that need a configuration, a restart or the end of the
// server are skipped, and say so. What the protocol says SHOULD be is demanded
// like the rest: a server may fail there and still serve every client.
//
// # Known gaps
//
// A statement that Sallyport does not fulfil yet stands in the table gaps with
// the reason. Its test runs all the same: it is skipped when it fails, and fails
// when it unexpectedly passes, so that the table cannot grow old. Of another
// server's gaps the table knows nothing.
package conformance
