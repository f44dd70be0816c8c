package turn

import (
	"io"
	"sync"
	"syscall"
)

// inletSize is how much is read at once from beneath TLS, which by itself asks for a
// header, then for the rest, of each record.
const inletSize = 16 << 10

// An inlet is where the bytes of a connection come from: the other half of its wire.
// It holds a buffer only while there is something in it. One goroutine reads it.
type inlet struct {
	raw  syscall.RawConn
	call func(fd uintptr) bool // in.attempt, made once

	buf  *[inletSize]byte // of rest; nil if that is empty
	rest []byte
	into []byte // argument and results of call
	n    int
	err  error
}

var inlets = sync.Pool{New: func() any { return new([inletSize]byte) }}

func newInlet(raw syscall.RawConn) *inlet {
	in := &inlet{raw: raw}
	in.call = in.attempt
	return in
}

// Read waits for something to read.
func (in *inlet) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	if len(in.rest) == 0 {
		in.into = b
		err := in.raw.Read(in.call)
		in.into = nil
		switch {
		case err != nil:
			return 0, err
		case in.err != nil:
			return 0, in.err
		case in.n > 0:
			return in.n, nil
		case len(in.rest) == 0:
			return 0, io.EOF
		}
	}
	n := copy(b, in.rest)
	if in.rest = in.rest[n:]; len(in.rest) == 0 {
		in.rest = nil
		inlets.Put(in.buf)
		in.buf = nil
	}
	return n, nil
}

// attempt is called with the socket; false means that there is nothing yet.
func (in *inlet) attempt(fd uintptr) bool {
	var some bool
	if len(in.into) >= maxDatagram {
		in.n, some, in.err = tryReceive(fd, in.into)
		return some
	}
	buf := inlets.Get().(*[inletSize]byte)
	n, some, err := tryReceive(fd, buf[:])
	in.n, in.err = 0, err
	if n > 0 {
		in.buf, in.rest = buf, buf[:n]
	} else {
		inlets.Put(buf)
	}
	return some
}
