// Package tls is the door: one TCP socket on which browsers, WebSockets, TURN
// clients and ICE-TCP candidates arrive together, and the certificate they see.
//
// A [Port] accepts, finds out by the first bytes who is calling, finishes the
// TLS handshake where there is one, and hands the connection to one of four
// listeners. From then on it never touches the connection again.
//
//	                 first bytes (10 s)            after the handshake (60 s)
//	accept ──limits──┬─ PROXY header of a trusted proxy: read, then again from here
//	                 ├─ 16 03 0x ─── TLS ≤ 10 s ─┬─ ALPN h2 ──────────────> HTTP   *tls.Conn itself
//	                 │                           ├─ ALPN acme-tls/1 ──────> closed: the certificate was the answer
//	                 │                           ├─ STUN cookie at 4 ─────> TURN   Secure() == true
//	                 │                           └─ anything else ────────> HTTP   fills http.Request.TLS
//	                 ├─ STUN cookie at 4 ────────────────────────────────> TURN   Secure() == false
//	                 ├─ length, STUN cookie at 6 (RFC 4571) ─────────────> ICE
//	                 ├─ a letter: plain HTTP ────────────────────────────> Plain  to be redirected
//	                 └─ everything else: closed
//
// ALPN alone cannot decide. Chromium sends none on turns: URLs, coturn's client
// negotiates http/1.1 and then speaks TURN, and a browser behind some proxies
// loses ALPN altogether. Only h2 is taken at its word, because net/http serves
// HTTP/2 on nothing but a bare *tls.Conn. The server name is never looked at for
// routing: some TURN clients send none.
//
// [Certificates] answers the handshakes: from files that are reloaded when they
// change, self-signed, or obtained and renewed by ACME. A new certificate never
// disturbs a connection that is already open.
//
// This is the only package that imports crypto/tls.
package tls
