// Package rtcd is the front door of the SFU for the Mattermost Calls plugin: it
// speaks the HTTP and WebSocket interface of the rtcd service, so that an
// unmodified plugin uses us as one. It knows no RTP; package sfu knows no
// WebSocket, credential or wire format. The two meet at sfu.Signal.
//
//	plugin ── GET /ws ──> authenticate ──> conn: reader ──> wire.Decode ─┬─ join ──> sfu.Server.Join
//	                                        │                            └─ rtc ───> sfu.Session
//	       <── frames ──── writer <── bounded queue <── wire.Append <── binding <── (sfu.Signal)
//
// A client is one Mattermost installation: it has an ID and a key, and each of
// its nodes opens a connection of its own. Its calls form a group of the same
// name; nothing a client sends reaches the sessions of another one.
//
// A binding ties a session to the connection that speaks for it: the one that
// carried its join, or its last reconnect. When that connection is gone, the
// newest living one of the same client takes over.
//
// No connection can hold up another one: each has its own writer, and one that
// does not keep up is closed, which makes the plugin connect again.
//
// Profiles are not served here: /debug/pprof belongs to the admin listener.
package rtcd
