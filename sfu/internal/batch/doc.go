// Package batch has UDP sockets that move many datagrams in one system call.
//
//	Socket ─ Read ─> Batch                     up to Size datagrams with their sources
//	Out ─ Reserve, seal in place, Commit ─ Flush ─> Socket
//
// On Linux a Socket reads with recvmmsg and an Out writes with sendmmsg; equal
// datagrams to one destination that follow each other leave as one message that
// the kernel, or the network card, cuts (UDP_SEGMENT, "GSO"). Elsewhere, and
// where Options.Portable or the build tag portable asks for it, they go one by
// one through package net. Both are tested with the same tests. Neither
// allocates anything for a datagram.
//
// Nothing here is safe for use by several goroutines but the methods of Socket:
// a Batch and an Out belong to one goroutine each.
package batch
