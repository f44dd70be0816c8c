package turn

import (
	"encoding/binary"
	"errors"
	"io"
)

const (
	stunHeader    = 20
	channelHeader = 4
	magicCookie   = 0x2112A442

	// maxDatagram is the longest STUN message or ChannelData frame we handle,
	// in bytes. One more and pion/turn calls it truncated.
	maxDatagram = 1599

	// maxStrangerFrame is the longest frame a connection may announce before
	// it holds an allocation. Requests are far shorter.
	maxStrangerFrame = 4096

	// maxFrame is above anything the 16-bit length field can announce.
	maxFrame = 1 << 17

	// maxEmptyReads bounds a reader that returns neither bytes nor an error.
	maxEmptyReads = 100
)

var (
	errNotTURN      = errors.New("read frame: neither STUN nor ChannelData")
	errFrameTooLong = errors.New("read frame: longer than allowed here")
)

// isChannelData tells ChannelData from STUN.
func isChannelData(b []byte) bool { return b[0]>>6 == 1 }

// appendChannelData makes ChannelData of a packet, padded as on a stream: that is
// allowed everywhere.
func appendChannelData(to []byte, channel uint16, b []byte) []byte {
	to = binary.BigEndian.AppendUint16(to, channel)
	to = binary.BigEndian.AppendUint16(to, uint16(len(b)))
	to = append(to, b...)
	return append(to, padding[:-len(b)&3]...)
}

var padding [3]byte

// A framer cuts a byte stream into STUN messages and ChannelData frames
// (RFC 8656 §3.1, §12.5). One goroutine uses it.
type framer struct {
	r          io.Reader
	buf        [4096]byte
	start, end int // the unread part of buf
	taken      int // length of the frame handed out last, padding included
	oversized  int // frames skipped because they exceed maxDatagram
}

func newFramer(r io.Reader) *framer { return &framer{r: r} }

// next returns the next frame without its padding. The slice is valid until
// the following call. Frames longer than maxDatagram are skipped; a frame
// longer than limit is an error, as is everything that is not a frame: there
// is no way to find the start of the next one.
func (f *framer) next(limit uint32) ([]byte, error) {
	for {
		f.start += f.taken
		f.taken = 0
		size, padded, err := f.header()
		switch {
		case err != nil:
			return nil, err
		case padded > limit:
			return nil, errFrameTooLong
		case size > maxDatagram:
			f.oversized++
			err = f.skip(int(padded))
		default:
			err = f.fill(int(padded))
		}
		if err != nil {
			return nil, err
		}
		if size <= maxDatagram {
			f.taken = int(padded)
			return f.buf[f.start : f.start+int(size)], nil
		}
	}
}

// ready tells whether the next frame has come whole with the one before, so that
// next will neither wait for it nor move what it has returned.
func (f *framer) ready() bool {
	rest := f.buf[f.start+f.taken : f.end]
	return len(rest) >= channelHeader && isChannelData(rest) && len(rest) >= (channelHeader+int(binary.BigEndian.Uint16(rest[2:]))+3)&^3
}

// header reads as much as tells the length of the next frame, without and with
// its padding. The sums cannot overflow: the length on the wire has 16 bits.
func (f *framer) header() (size, padded uint32, err error) {
	if err := f.fill(channelHeader); err != nil {
		return 0, 0, err
	}
	length := uint32(binary.BigEndian.Uint16(f.buf[f.start+2:]))
	switch f.buf[f.start] >> 6 {
	case 0: // STUN: its cookie proves it
		if err := f.fill(8); err != nil {
			return 0, 0, err
		}
		if length%4 != 0 || binary.BigEndian.Uint32(f.buf[f.start+4:]) != magicCookie {
			return 0, 0, errNotTURN
		}
		return stunHeader + length, stunHeader + length, nil
	case 1: // ChannelData, padded to four bytes on streams
		size := channelHeader + length
		return size, (size + 3) &^ 3, nil
	default:
		return 0, 0, errNotTURN
	}
}

// fill makes at least n bytes of the current frame available in buf; n is at
// most len(buf).
func (f *framer) fill(n int) error {
	if f.start+n > len(f.buf) {
		f.end = copy(f.buf[:], f.buf[f.start:f.end])
		f.start = 0
	}
	for empty := 0; f.end-f.start < n; {
		got, err := f.r.Read(f.buf[f.end:])
		f.end += got
		switch {
		case f.end-f.start >= n:
			return nil
		case err == io.EOF && f.end > f.start:
			return io.ErrUnexpectedEOF
		case err != nil:
			return err
		case got > 0:
			empty = 0
		default:
			if empty++; empty == maxEmptyReads {
				return io.ErrNoProgress
			}
		}
	}
	return nil
}

// skip discards the n bytes of the current frame, whatever of it is buffered.
func (f *framer) skip(n int) error {
	for n > 0 {
		have := min(n, f.end-f.start)
		f.start += have
		n -= have
		if n > 0 {
			if err := f.fill(1); err != nil {
				return err
			}
		}
	}
	return nil
}
