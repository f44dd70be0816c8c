package sfu

import (
	"net"
	"testing"
	"time"

	"sallyport/sfu/internal/packetcache"
	"sallyport/sfu/internal/rtpheader"
	"sallyport/sfu/internal/srtp"
)

// A leg is the way from the fan-out to one receiver over real sockets, with
// nothing of pion: what the SFU encrypts comes out of conn, and is opened with the
// receiver's keys.
type leg struct {
	t     testing.TB
	srv   *Server
	out   *outbox
	media *media
	conn  *net.UDPConn
	keys  *srtp.Keys // the receiver's
	opens map[uint32]*srtp.Opener
	buf   []byte
	raw   []byte // the last packet as it came, encrypted
}

// newLeg makes a server and a receiver of it.
func newLeg(t testing.TB, profile srtp.Profile) *leg {
	t.Helper()
	socks, err := Listen(Config{UDP: "127.0.0.1:0", TCP: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	srv, err := New(socks, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = srv.mux.Close() })
	return addLeg(t, srv, profile, "leg")
}

// addLeg makes one more receiver of a server.
func addLeg(t testing.TB, srv *Server, profile srtp.Profile, ufrag string) *leg {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	local := srv.mux.sockets[0].local
	agent, err := srv.mux.GetConn(ufrag, net.UDPAddrFromAddrPort(local))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := agent.WriteTo([]byte{1}, conn.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	l := &leg{t: t, srv: srv, out: srv.mux.newOutbox(), conn: conn, opens: map[uint32]*srtp.Opener{}, buf: make([]byte, 2*maxDatagram)}
	if n, err := conn.Read(l.buf); n != 1 || err != nil {
		t.Fatalf("the path does not carry: %d bytes, %v", n, err)
	}
	l.media = newMedia(newSession(srv, newCall(ufrag, 0), Member{Group: "g", Call: "c", User: "u", Session: ufrag}, nil))
	l.media.session.media = l.media
	key, salt := make([]byte, profile.KeyLength()), make([]byte, profile.SaltLength())
	copy(key, ufrag)
	for _, k := range []**srtp.Keys{&l.keys, new(*srtp.Keys)} {
		if *k, err = srtp.NewKeys(profile, key, salt); err != nil {
			t.Fatal(err)
		}
		l.media.out.Store(*k)
	}
	w := srv.mux.way(ufrag, local, localAddrPort(conn.LocalAddr()), false)
	if w == nil {
		t.Fatal("no way to the receiver")
	}
	l.media.way.Store(w)
	return l
}

// stream makes an outgoing.
func (l *leg) stream(o *outgoing) *outgoing {
	l.t.Helper()
	keys := l.media.out.Load()
	o.to, o.overhead = l.media, keys.Profile().Overhead()
	var err error
	if o.seal, err = keys.Sealer(o.ssrc, packetcache.Memory); err != nil {
		l.t.Fatal(err)
	}
	return o
}

// noMore is how long a packet may take over loopback.
const noMore = time.Second / 5

// next returns the next packet that arrives, decrypted; ok is false if none is
// there.
func (l *leg) next() (p rtpheader.Packet, ok bool) {
	l.t.Helper()
	l.out.flush()
	n, err := l.read()
	if err != nil {
		return p, false
	}
	l.raw = append(l.raw[:0], l.buf[:n]...)
	x, ok := rtpheader.Parse(l.buf[:n])
	if !ok {
		l.t.Fatalf("%x is no RTP", l.buf[:n])
	}
	o := l.opens[x.SSRC]
	if o == nil {
		o = l.keys.Opener(x.SSRC)
		l.opens[x.SSRC] = o
	}
	plain, err := o.Open(l.buf[:n])
	if err != nil {
		l.t.Fatalf("packet %d of %d: %v", x.Seq, x.SSRC, err)
	}
	p, ok = rtpheader.Parse(plain)
	return p, ok
}

// read waits for noMore. Whoever stands still for that long has not looked.
func (l *leg) read() (int, error) {
	for {
		began := time.Now()
		_ = l.conn.SetReadDeadline(began.Add(noMore))
		n, err := l.conn.Read(l.buf)
		if err == nil || time.Since(began) < noMore+noMore/4 {
			return n, err
		}
	}
}

// all returns the payloads of everything that arrives.
func (l *leg) all() (payloads []string) {
	l.t.Helper()
	for {
		p, ok := l.next()
		if !ok {
			return payloads
		}
		payloads = append(payloads, string(p.Payload))
	}
}
