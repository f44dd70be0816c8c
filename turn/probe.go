package turn

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/pion/stun"
	"github.com/pion/turn/v2"
)

// probeRepeat is how often the STUN request to the peer is sent until it is
// answered.
const probeRepeat = 250 * time.Millisecond

// channelPause is between two exchanges that wait for the channel.
const channelPause = 10 * time.Millisecond

// ProbeTarget says what Probe shall try.
type ProbeTarget struct {
	Network string // udp, tcp or tls
	Address string // host:port of the TURN server

	// Dial makes the connection. Required for tls, whose handshake is not this
	// package's business; nil means a plain connection to Address otherwise.
	Dial func(ctx context.Context) (net.Conn, error)

	Username, Password string

	// Peer gets a STUN Binding request through the relay and has to answer.
	// Zero means that allocating is all.
	Peer netip.AddrPort

	// Ufrag is the ICE user fragment of the peer, which an SFU wants to see;
	// empty: the request has no USERNAME.
	Ufrag string
}

// ProbeResult is what Probe found out, as far as it got.
type ProbeResult struct {
	Mapped    netip.AddrPort // our address as the server sees it
	Relayed   netip.AddrPort
	Connect   time.Duration // to have a connection (and handshake)
	Allocate  time.Duration // from there to an allocation
	RoundTrip time.Duration // through a channel of the relay to the peer and back; 0 without peer
}

// Probe behaves like a client: it connects, allocates, binds a channel, and
// exchanges STUN messages with the peer until one has come through the channel.
// It needs ctx to have a deadline that suits it. The result is filled up to the
// step that failed.
func Probe(ctx context.Context, t ProbeTarget) (ProbeResult, error) {
	var res ProbeResult
	began := time.Now()
	conn, err := t.dial(ctx)
	if err != nil {
		return res, fmt.Errorf("connect to %s over %s: %w", t.Address, t.Network, err)
	}
	defer conn.Close()
	res.Connect = time.Since(began)

	packets := newClientConn(conn, t.Network)
	c, err := turn.NewClient(&turn.ClientConfig{
		Conn: packets, TURNServerAddr: serverPlaceholder,
		Username: t.Username, Password: t.Password, LoggerFactory: newPionLog(slog.New(slog.DiscardHandler)),
	})
	if err != nil {
		return res, fmt.Errorf("make turn client: %w", err)
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { // pion's client knows no context
		_ = conn.Close()
		c.Close()
	})
	defer stop()
	if err := c.Listen(); err != nil {
		return res, fmt.Errorf("start turn client: %w", err)
	}
	if err := res.run(ctx, c, packets, t); err != nil {
		return res, errors.Join(err, ctx.Err())
	}
	return res, nil
}

func (t ProbeTarget) dial(ctx context.Context) (net.Conn, error) {
	switch {
	case t.Network != "udp" && t.Network != "tcp" && t.Network != "tls":
		return nil, fmt.Errorf("network %q is none of udp, tcp, tls", t.Network)
	case t.Dial != nil:
		return t.Dial(ctx)
	case t.Network == "tls":
		return nil, errors.New("tls needs a Dial function")
	}
	var d net.Dialer
	return d.DialContext(ctx, t.Network, t.Address)
}

// run does what Probe does once there is a client.
func (res *ProbeResult) run(ctx context.Context, c *turn.Client, packets *clientConn, t ProbeTarget) error {
	began := time.Now()
	mapped, err := c.SendBindingRequestTo(c.TURNServerAddr())
	if err != nil {
		return fmt.Errorf("ask for our address: %w", err)
	}
	res.Mapped = addrPort(mapped)
	relay, err := c.Allocate()
	if err != nil {
		return fmt.Errorf("allocate: %w", err)
	}
	defer relay.Close()
	res.Allocate = time.Since(began)
	res.Relayed = addrPort(relay.LocalAddr())
	if !t.Peer.IsValid() {
		return nil
	}
	for {
		began = time.Now()
		if err := ping(ctx, relay, t); err != nil {
			return fmt.Errorf("reach %s through the relay: %w", t.Peer, err)
		}
		res.RoundTrip = time.Since(began)
		if packets.channel.Load() {
			return nil
		}
		select { // the first exchange is what makes pion bind a channel
		case <-time.After(channelPause):
		case <-ctx.Done():
			return fmt.Errorf("bind a channel to %s: %w", t.Peer, ctx.Err())
		}
	}
}

// ping sends STUN Binding requests until one is answered, with success or not.
func ping(ctx context.Context, relay net.PacketConn, t ProbeTarget) error {
	attrs := []stun.Setter{stun.TransactionID, stun.BindingRequest}
	if t.Ufrag != "" {
		attrs = append(attrs, stun.NewUsername(t.Ufrag+":probe"))
	}
	ask, err := stun.Build(append(attrs, stun.Fingerprint)...)
	if err != nil {
		return err
	}
	to := net.UDPAddrFromAddrPort(t.Peer)
	buf := make([]byte, maxDatagram)
	for ctx.Err() == nil {
		if _, err := relay.WriteTo(ask.Raw, to); err != nil {
			return err
		}
		if err := relay.SetReadDeadline(time.Now().Add(probeRepeat)); err != nil {
			return err
		}
		n, _, err := relay.ReadFrom(buf)
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			continue
		}
		if err != nil {
			return err
		}
		answer := stun.Message{Raw: buf[:n]}
		if answer.Decode() == nil && answer.TransactionID == ask.TransactionID && answer.Type.Class != stun.ClassRequest {
			return nil
		}
	}
	return ctx.Err()
}

// serverPlaceholder stands for the server in pion's client, which wants an
// IPv4 address to resolve. The connection knows where it leads.
const serverPlaceholder = "192.0.2.1:3478"

// A clientConn is a connected socket or stream to a TURN server as the packet
// connection pion's client wants.
type clientConn struct {
	net.Conn
	framer *framer      // nil for UDP
	server *net.UDPAddr // serverPlaceholder

	channel atomic.Bool // ChannelData has come
}

func newClientConn(conn net.Conn, network string) *clientConn {
	c := &clientConn{Conn: conn, server: net.UDPAddrFromAddrPort(netip.MustParseAddrPort(serverPlaceholder))}
	if network != "udp" {
		c.framer = newFramer(conn)
	}
	return c
}

func (c *clientConn) ReadFrom(b []byte) (int, net.Addr, error) {
	var n int
	var err error
	if c.framer == nil {
		n, err = c.Read(b)
	} else {
		var frame []byte
		frame, err = c.framer.next(maxFrame)
		n = copy(b, frame)
	}
	if n > 0 && b[0]>>6 == 1 {
		c.channel.Store(true)
	}
	return n, c.server, err
}

func (c *clientConn) WriteTo(b []byte, _ net.Addr) (int, error) { return c.Write(b) }
