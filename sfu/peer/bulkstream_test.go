package peer

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"testing"
	"testing/iotest"
)

// readerConn is a connection to read from.
type readerConn struct {
	net.Conn
	from io.Reader
}

func (c readerConn) Read(b []byte) (int, error) { return c.from.Read(b) }

// channelData is ChannelData with an RTP packet of n bytes in it.
func channelData(ssrc uint32, number uint16, n int) []byte {
	b := make([]byte, 4+(n+3)&^3)
	b[0] = 0x40
	binary.BigEndian.PutUint16(b[2:], uint16(n))
	b[4], b[5] = 0x80, 111
	binary.BigEndian.PutUint16(b[6:], number)
	binary.BigEndian.PutUint32(b[12:], ssrc)
	return b
}

// Known tracks are counted and the rest goes on whole, whatever the pieces are in
// which it comes.
func TestBulkStream(t *testing.T) {
	stun := append([]byte{1, 1, 0, 8}, make([]byte, 24)...)
	var sent, rest []byte
	for i := range uint16(2000) {
		for _, x := range []struct {
			message []byte
			counted bool
		}{{channelData(7, i, 81), true}, {channelData(8, i, 80), false}, {stun, false}} {
			sent = append(sent, x.message...)
			if !x.counted {
				rest = append(rest, x.message...)
			}
		}
	}
	for name, from := range map[string]io.Reader{
		"large": bytes.NewReader(sent),
		"half":  iotest.HalfReader(bytes.NewReader(sent)),
		"bytes": iotest.OneByteReader(bytes.NewReader(sent)),
	} {
		tally := newTally(nil)
		track := tally.take(7)
		d := dialer(func(string, string) (net.Conn, error) { return readerConn{from: from}, nil }).counted(tally)
		c, err := d("", "")
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(c)
		if err != nil || !bytes.Equal(got, rest) {
			t.Errorf("%s: %d bytes go on, want %d; %v", name, len(got), len(rest), err)
		}
		if s := track.stats(); s.Packets != 2000 || s.Lost != 0 {
			t.Errorf("%s: counted %+v", name, s)
		}
	}
}
