package peer

import (
	"crypto/rand"
	"log/slog"
	"net"
	"net/netip"
	"strings"

	"sallyport/sfu/wire"
)

// Config describes a participant. Call is required.
type Config struct {
	// Call names the call; peers of equal Call hear each other.
	Call string
	// User, Session and Channel are Mattermost's IDs: 26 characters of a-z and
	// 0-9. Empty ones are made up.
	User, Session, Channel string
	// AV1 says that the peer receives AV1, and makes it publish AV1 beside VP8.
	AV1 bool
	// DCSignaling moves offers and answers to the data channel once it is open.
	DCSignaling bool

	// Path forces the way of the media.
	Path Path
	// Port, if not 0, is the only port of the server's that media goes to.
	Port uint16
	// LocalIP, if valid, is the only local address that media uses.
	LocalIP netip.Addr
	// IPv6 makes the peer use its IPv6 addresses instead of its IPv4 addresses.
	IPv6 bool
	// ICEServers are the TURN servers of the TURN paths.
	ICEServers []ICEServer
	// DialTURN opens the stream to a TURN server on the paths TURNTCP and
	// TURNTLS; for the latter it does the TLS handshake too. On Auto it opens
	// those of all ICEServers, which must then be of one kind. The connection's
	// LocalAddr must be a *net.TCPAddr. nil means plain TCP, or TLS that trusts
	// the system's roots, which SSL_CERT_FILE replaces.
	DialTURN func(network, address string) (net.Conn, error)
	// Feedback makes the peer report like a browser: receiver and sender
	// reports, NACK and retransmission, transport-wide congestion feedback.
	// Without it a peer costs less and still asks for key frames.
	Feedback bool
	// NoPings keeps the peer from pinging once a second, as clients do, so that a
	// server's cost is that of the media.
	NoPings bool
	// SRTP says how media is encrypted.
	SRTP SRTP
	// Bulk, if not nil, receives for the peer on the paths that it serves. Its
	// tracks are then counted only, and Feedback is of no use.
	Bulk *Bulk
	// Window, if not nil, marks the packets to be measured. nil measures all.
	Window *Window

	// OnTrack is called when the first packet of a track has come, OnVoice when
	// the server found that this peer speaks or stopped, OnClosed when the peer
	// has ended, with the reason. None may block or call the peer's Close.
	OnTrack  func(*Track)
	OnVoice  func(on bool)
	OnClosed func(error)
	// OnPacket, if not nil, sees every packet of every track before it is counted:
	// the whole RTP packet, not to be kept. The tracks' goroutines call it.
	OnPacket func(t *Track, packet []byte)
	// Logger takes what goes wrong but ends nothing. nil discards.
	Logger *slog.Logger

	tally *tally // of the Bulk
}

// NewID returns a random ID of the form of Mattermost's.
func NewID() string {
	return strings.ToLower(rand.Text())[:26]
}

func (c *Config) complete() {
	for _, id := range []*string{&c.User, &c.Session, &c.Channel} {
		if *id == "" {
			*id = NewID()
		}
	}
	if c.OnTrack == nil {
		c.OnTrack = func(*Track) {}
	}
	if c.OnVoice == nil {
		c.OnVoice = func(bool) {}
	}
	if c.OnClosed == nil {
		c.OnClosed = func(error) {}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.counts() {
		c.tally = newTally(c.Window)
	}
	c.Logger = c.Logger.With("call", c.Call, "session", c.Session)
}

func (c *Config) join() wire.Envelope {
	return wire.Envelope{Type: wire.TypeJoin, Join: wire.Join{
		Call: c.Call, User: c.User, Session: c.Session, Channel: c.Channel,
		AV1: c.AV1, AV1Set: true, DCSignaling: c.DCSignaling, DCSet: true,
	}}
}
