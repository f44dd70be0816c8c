package sfu

// Config is the part of section `sfu` that concerns media. Every field needs a
// restart to change.
type Config struct {
	// Mode is rtcd (this SFU carries the media and the Calls plugin reaches it
	// through the rtcd API), forward, or off.
	Mode string `koanf:"mode"`
	// UDP is the address of the media sockets, host:port. Without a host one
	// socket is opened on every useful local address.
	UDP string `koanf:"udp"`
	// TCP is the address of the ICE-TCP listeners (RFC 6544, passive), like
	// UDP. Empty means no ICE-TCP of its own.
	TCP string `koanf:"tcp"`
	// Advertise replaces local addresses in the candidates that clients get, in
	// one of three forms: one public IP or host name for all local addresses of
	// its family; pairs external/internal, in which case nothing else is
	// advertised; or stun:host:port, servers that each local address asks how it
	// is seen from outside. Names and servers are asked at start and again in
	// the background: new sessions get what has changed, and a failure leaves
	// the last answer, or else the local address, in force. Empty advertises the
	// local addresses themselves; nobody is asked then.
	Advertise []string `koanf:"advertise"`
	// IPv6 adds IPv6 addresses.
	IPv6 bool `koanf:"ipv6"`
	// AudioLastN is how many speakers of a call are heard at a time: the loudest,
	// by what their clients say. 0 means all, as clients expect.
	AudioLastN int `koanf:"audio_last_n"`
	// ForwardTo is the plugin's own media server in mode forward, host:port.
	ForwardTo string `koanf:"forward_to"`
}
