package gateway_test

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/stun"

	"sallyport/sfu/peer"
)

const (
	peerUDP  = peer.UDP
	peerTURN = peer.TURNTLS
)

// TestHostile: what the Internet sends costs memory only while it lasts, the
// processor only as much as it must, and a call goes on as if nothing were.
func TestHostile(t *testing.T) {
	needPrograms(t, "ip", "go")
	if os.Getenv(inNamespace) == "" {
		rerunInNamespace(t)
		return
	}
	s := startSiege(t)
	s.suffer(t, "frames that lie about their length", lyingFrames)
	s.suffer(t, "one byte at a time", singleBytes)
	s.suffer(t, "users who cheat", cheatingUsers)
	s.suffer(t, "half-open TLS", halfOpenTLS)
	s.suffer(t, "never speaking", silence)
	s.suffer(t, "dribble", dribbles)
	s.suffer(t, "guessing", guesses)
	s.suffer(t, "garbage over TCP", garbage)
	s.suffer(t, "garbage over UDP", floods("garbage"))
	s.suffer(t, "spoofed Allocates", floods("allocate"))
	s.recovers(t)
	late := s.join(peerTURN)
	s.hears(late, s.call.a, 25)
	s.stop()
	if n := bytes.Count([]byte(s.log.String()), []byte{'\n'}); n > 100 {
		t.Errorf("the log has %d lines: strangers can fill the disk", n)
	}
}

// stunHead begins a STUN request that announces a length.
func stunHead(length uint16) []byte {
	b := make([]byte, 20)
	binary.BigEndian.PutUint16(b, uint16(stun.MethodAllocate))
	binary.BigEndian.PutUint16(b[2:], length)
	binary.BigEndian.PutUint32(b[4:], 0x2112A442)
	return b
}

// channelHead begins ChannelData that announces a length.
func channelHead(length uint16) []byte {
	return binary.BigEndian.AppendUint16([]byte{0x40, 0x00}, length)
}

// lyingFrames are those with which pion/turn's own framer never comes to an end,
// and others whose length is more than anyone should believe.
func lyingFrames(t *testing.T, s *siege) {
	honest := stunHead(0)
	big := make([]byte, 1<<16)
	frames := [][]byte{
		stunHead(0xFFEC), stunHead(0xFFFC), stunHead(0xFFFF), append(stunHead(0xFFF0), big...),
		append(stunHead(4000), big[:100]...), stunHead(8)[:10],
	}
	for _, length := range []uint16{0xFFFC, 0xFFFD, 0xFFFE, 0xFFFF} {
		frames = append(frames,
			slices.Concat(honest, channelHead(length)), slices.Concat(honest, channelHead(length), big))
	}
	for i := range 10 {
		for _, transport := range []string{"tcp", "tls"} {
			for _, frame := range frames {
				// An error says that we were cut off before the end: good.
				_, _ = s.stream(t, i, transport).Write(frame)
			}
		}
	}
	s.reaches(t, `sallyport_turn_drops_total{reason="malformed"}`, 200) // so they got as far as they could
}

// singleBytes sends 65 kB to TURN in segments of one byte, and what is honest in
// the same way, which must be understood.
func singleBytes(t *testing.T, s *siege) {
	var all sync.WaitGroup
	defer all.Wait()
	frame := append(stunHead(4000), make([]byte, 4000)...)
	for i, transport := range []string{"tcp", "tls"} {
		conn := s.stream(t, i, transport)
		all.Go(func() {
			if err := dribble(conn, bytes.Repeat(frame, 16)); err != nil {
				t.Errorf("cut off over %s: %v", transport, err)
			}
		})
	}
	for i := range 20 {
		conn := tls.Client(&dribbler{s.dial(t, i, "tcp", s.HTTPS)}, insecure())
		all.Go(func() {
			if err := conn.HandshakeContext(t.Context()); err != nil {
				t.Errorf("handshake in single bytes: %v", err)
			}
		})
	}
}

// dribble writes b in segments of one byte.
func dribble(conn net.Conn, b []byte) error {
	for i := range b {
		if _, err := conn.Write(b[i : i+1]); err != nil {
			return err
		}
	}
	return nil
}

// A dribbler writes its ClientHello, and all else, in segments of one byte.
type dribbler struct{ net.Conn }

func (d *dribbler) Write(b []byte) (int, error) { return len(b), dribble(d.Conn, b) }

// cheatingUsers have credentials.
func cheatingUsers(t *testing.T, s *siege) {
	for _, transport := range []string{"tcp", "tls"} {
		k := s.talkSTUN(t, transport)
		k.login("alice")
		// There is no IPv6 relay; asking for one must not give another.
		k.want(k.allocate(attribute(stun.AttrRequestedAddressFamily, 2, 0, 0, 0)), stun.CodeAddrFamilyNotSupported)
		k.want(k.allocate(attribute(stun.AttrEvenPort, 0x80)), stun.CodeInsufficientCapacity)
		k.want(k.allocate(), 0)

		// What follows MESSAGE-INTEGRITY nobody signed (RFC 8489, 14.5): a
		// lifetime of 0 there must not end the allocation.
		forged := &stun.Message{Raw: k.request(stun.MethodRefresh)}
		must(t, forged.Decode())
		forged.Add(stun.AttrLifetime, make([]byte, 4))
		forged.WriteHeader()
		m := k.ask(forged.Raw)
		k.want(m, 0)
		if lifetime(m) == 0 {
			t.Error("an unsigned LIFETIME ended the allocation")
		}

		// Frames of 64 KiB are skipped.
		for _, length := range []uint16{0xFFFF, 0xFFFE, 0xFFFD, 0xFFFC} {
			_, err := k.conn.Write(append(channelHead(length), make([]byte, (int(length)+3)&^3)...))
			must(t, err)
		}
		_, err := k.conn.Write(append(stunHead(0xFFFC), make([]byte, 0xFFFC)...))
		must(t, err)
		k.want(k.ask(k.request(stun.MethodRefresh)), 0)

		// Another user on the same connection has no power over it.
		mallory := &talker{t: t, conn: k.conn}
		mallory.login("mallory")
		zero := attribute(stun.AttrLifetime, 0, 0, 0, 0)
		mallory.want(mallory.ask(mallory.request(stun.MethodRefresh, zero)), stun.CodeWrongCredentials)
		channel := []stun.Setter{attribute(stun.AttrChannelNumber, 0x40, 0, 0, 0), sfuPeer(t, s)}
		mallory.want(mallory.ask(mallory.request(stun.MethodChannelBind, channel...)), stun.CodeWrongCredentials)
		k.want(k.ask(k.request(stun.MethodChannelBind, channel...)), 0)
	}
	s.reaches(t, `sallyport_turn_drops_total{reason="oversize"}`, 2*5)
}

// sfuPeer is the media socket as XOR-PEER-ADDRESS.
func sfuPeer(t *testing.T, s *siege) stun.Setter {
	a, err := net.ResolveUDPAddr("udp", s.MediaUDP)
	must(t, err)
	var m stun.Message
	must(t, stun.XORMappedAddress{IP: a.IP, Port: a.Port}.AddToAs(&m, stun.AttrXORPeerAddress))
	return attribute(stun.AttrXORPeerAddress, value(&m, stun.AttrXORPeerAddress)...)
}

// halfOpenTLS begins 10,000 handshakes: half of them do not finish their first
// message, the others do not answer.
func halfOpenTLS(t *testing.T, s *siege) {
	hello := clientHello(t)
	conns := crowd(t, 10_000, func(i int) net.Conn {
		conn := s.dial(t, i, "tcp", s.HTTPS)
		part := hello
		if i%16 < 8 {
			part = hello[:len(hello)/2]
		}
		_, err := conn.Write(part)
		must(t, err)
		return conn
	})
	s.reaches(t, demuxPending, len(conns)/10) // on a busy machine the first are gone when the last come
	atTheEnd(t, conns)
}

// silence opens 5,000 connections, to every port there is, and says nothing.
func silence(t *testing.T, s *siege) {
	ports := []string{s.HTTPS, s.HTTPS, s.HTTP, s.MediaTCP}
	conns := crowd(t, 4000, func(i int) net.Conn { return s.dial(t, i/4, "tcp", ports[i%4]) })
	// After a handshake silence is allowed: browsers connect ahead of need.
	crowd(t, 1000, func(i int) net.Conn { return s.stream(t, i, "tls") })
	s.reaches(t, demuxPending, 500)
	atTheEnd(t, conns)
}

// atTheEnd wants the product to close all of these.
func atTheEnd(t *testing.T, conns []net.Conn) {
	t.Cleanup(func() { // before they are closed by us
		for _, conn := range conns {
			if err := ended(conn); err != nil {
				t.Errorf("a stranger's connection to %s: %v", conn.RemoteAddr(), err)
				return
			}
		}
	})
}

// garbage sends rubbish to the media's TCP port.
func garbage(t *testing.T, s *siege) {
	random := rand.NewChaCha8([32]byte{1})
	var pieces [][]byte
	for _, size := range []int{0, 1, 19, 20, 100, 1200, 1472} {
		noise := make([]byte, size)
		_, _ = random.Read(noise)
		pieces = append(pieces, noise)
		for _, first := range []byte{0x00, 0x01, 0x14, 0x16, 0x40, 0x80, 0xC0} { // STUN, DTLS, ChannelData, RTP, QUIC
			if size > 0 {
				pieces = append(pieces, append([]byte{first}, noise[1:]...))
			}
		}
	}
	pieces = append(pieces, stunHead(0), stunHead(0xFFEC), append(stunHead(1400), make([]byte, 1400)...), channelHead(0xFFFC))
	for i := range 10 {
		for _, piece := range pieces {
			// RFC 4571 frames, and not even that; we are cut off when it shows.
			_, _ = s.dial(t, i, "tcp", s.MediaTCP).Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(piece))), piece...))
			_, _ = s.dial(t, i, "tcp", s.MediaTCP).Write(piece)
		}
	}
}

// dribbles begins 1,000 handshakes in single bytes, all at the same time, and
// finishes none.
func dribbles(t *testing.T, s *siege) {
	hello := clientHello(t)[:100]
	conns := crowd(t, 1000, func(i int) net.Conn { return s.dial(t, i, "tcp", s.HTTPS) })
	var all sync.WaitGroup
	for first := range 4 {
		all.Go(func() {
			for _, b := range hello {
				for i := first; i < len(conns); i += 4 {
					_, _ = conns[i].Write([]byte{b}) // an error says that it took too long
				}
			}
		})
	}
	all.Wait()
	s.reaches(t, demuxPending, 1) // so they were not refused
	atTheEnd(t, conns)
}

// guesses tries 2,000 passwords for alice, from eight addresses, and all are wrong.
// She herself is not locked out by that.
func guesses(t *testing.T, s *siege) {
	crowd(t, 8, func(i int) net.Conn {
		transport := []string{"tcp", "tls"}[i%2]
		k := &talker{t: t, conn: s.stream(t, i, transport)}
		_ = k.conn.SetDeadline(time.Now().Add(patience))
		k.login("alice")
		for guess := range 250 {
			binary.BigEndian.PutUint16(k.key, uint16(guess))
			k.want(k.allocate(), stun.CodeUnauthorized)
		}
		return k.conn
	})
	k := &talker{t: t, conn: s.stream(t, 0, "tls")}
	k.login("alice")
	k.want(k.allocate(), 0)
}

// buildFlooder builds what sends packets faster than a test with the race detector.
func buildFlooder(t *testing.T) (file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "flood")
	command := exec.Command("go", "build", "-o", file, "./testdata/flood")
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("build flood: %v\n%s", err, out)
	}
	return file
}

// floods sends packets of a kind to UDP 443 for some seconds, each from an address
// of its own. The rate is what leaves a machine with two processors, which has to
// send, receive, play the call and look for races, something over for the call.
func floods(kind string) attack {
	const rate, length = 50_000, 5 * time.Second
	return func(t *testing.T, s *siege) {
		began, before := time.Now(), s.cpu()
		out, err := exec.CommandContext(within(t), s.flooder, "-to", s.UDP, "-from", attackers,
			"-rate", strconv.Itoa(rate), "-for", length.String(), kind).CombinedOutput()
		took := time.Since(began)
		sent, parsed := strconv.Atoi(strings.TrimSpace(string(out)))
		if err != nil || parsed != nil {
			t.Fatalf("flood: %v: %s", err, out)
		}
		t.Logf("%.1f kpps; the product takes %.0f %% of a core", float64(sent)/took.Seconds()/1000, 100*float64(s.cpu()-before)/float64(took))
	}
}
