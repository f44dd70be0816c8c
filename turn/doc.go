// Package turn is Sallyport's TURN server (RFC 8656 over UDP, TCP and TLS): the
// way into a call for people behind firewalls that let nothing else through.
//
// It relays to the SFU of the same process and, unless the administrator names
// further media servers, to nothing else. A relayed address is a label in a
// map, not a socket: no relay port range exists, and the server cannot be used
// to reach other machines.
//
// # Words
//
//   - client: whoever sent us packets from one source address on one of our
//     sockets or connections, the 5-tuple of the RFC
//   - allocation: what a client with a valid credential holds
//   - relay: the packet connection of one allocation, in memory
//   - Hairpin: where relays and the SFU's sockets meet
//   - landing: one media socket of the SFU as the relays see it
//   - haul: media on its way up, read at once; sheaf: on its way down, sent at once
//   - peer: the address a client wants to talk to
//   - stranger: a client without an allocation
//   - outbox: what waits for a TCP connection that does not keep up
//
// # The way of a packet
//
//	                             ChannelData of a living channel to the SFU
//	                            ┌──────────────────────────────────────────> relay ───> landing ─> SFU
//	TCP, TLS ─ stream ─ framer ─┤                                         <─   │         (a map key)
//	                            ├─> shard ───> ┌──────────────────────┐ ─>    ─┤
//	UDP ────── socket ──────────┘   (guard)    │ pion/turn            │ <─     └─> kernel socket
//	                                           │ permissions,channels │            (relay_to only)
//	                                           └──────────────────────┘
//
// pion/turn never sees the Internet. A shard is the net.PacketConn it reads
// from, and the guard inside the shard authenticates every request, decides
// it, and hands pion a request of its own making from a client address of its
// own making; pion's answer only says whether it agreed, and the guard writes
// the answer the client gets. So a hostile message is parsed by the guard
// alone, errors carry the codes the RFC asks for, two clients can never be
// taken for one another, and an allocation disappears when its connection
// does.
//
// # Who runs where
//
// One goroutine per UDP socket and one per connection read; each shard has one,
// pion's read loop, on which the guard runs: everything a guard owns needs no
// lock. Media of channels passes neither: the reader's goroutine calls the SFU, the
// SFU's writes to clients, and nobody waits on either. What a TCP connection does
// not take at once waits in its outbox, and a goroutine for as long as that.
//
// Every queue is bounded. Media that does not fit is dropped and counted, it never
// makes anybody wait: the oldest video first, by the look of its packets. On TCP
// voice overtakes video, and what is late is not sent at all.
package turn
