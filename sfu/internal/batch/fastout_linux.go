//go:build linux && !portable

package batch

import (
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// patience is how long a Flush waits in all for room in the kernel's buffer.
const patience = 4 * time.Millisecond

// A fastOut is what sendmmsg reads, beside the buffer.
type fastOut struct {
	hdrs  [outMessages]mmsghdr
	iovs  [outMessages]unix.Iovec
	names [outMessages]unix.RawSockaddrInet6
	cuts  [outMessages]cut

	call func(fd uintptr) // f.transmit, made once
	// The argument and results of call: messages from first on to last.
	first, last int
	sent        int
	errno       syscall.Errno
	// wait returns when the socket of fd may have room, or after a time. Tests
	// replace it and send.
	wait func(fd uintptr, most time.Duration)
	send func(fd uintptr, hdrs []mmsghdr) (int, syscall.Errno)
	idle time.Duration // how long this Flush may still wait
}

// A cut is the control message that says into what size the kernel cuts.
type cut struct {
	hdr  unix.Cmsghdr
	size uint16
	_    [6]byte
}

func (f *fastOut) init() {
	for i := range f.hdrs {
		h := &f.hdrs[i].hdr
		h.Name = (*byte)(unsafe.Pointer(&f.names[i]))
		h.Iov = &f.iovs[i]
		h.SetIovlen(1)
		f.cuts[i].hdr.Level, f.cuts[i].hdr.Type = unix.SOL_UDP, unix.UDP_SEGMENT
		f.cuts[i].hdr.SetLen(unix.CmsgLen(2))
	}
	f.call, f.wait, f.send = f.transmit, waitWritable, sendmmsg
}

// sendmmsg does not wait, so the scheduler need not hear of it: told, it takes the
// processor away from whoever sends many, and gives it back with two wake-ups.
func sendmmsg(fd uintptr, hdrs []mmsghdr) (int, syscall.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&hdrs[0])), uintptr(len(hdrs)), unix.MSG_DONTWAIT, 0, 0)
	return int(n), errno
}

func waitWritable(fd uintptr, most time.Duration) {
	timeout := unix.NsecToTimespec(int64(most))
	_, _ = unix.Ppoll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, &timeout, nil)
}

// flush sends the messages of o.
func (f *fastOut) flush(o *Out) {
	s := o.socket.fast
	f.idle = patience
	for i, m := range o.msgs[:o.count] {
		f.put(i, m, o, s.v6)
	}
	for next := 0; next < o.count; {
		f.first, f.last = next, o.count
		if err := s.raw.Control(f.call); err != nil {
			o.lose(LossClosed, segmentsOf(o.msgs[next:o.count]))
			return
		}
		runtime.KeepAlive(o)
		next += f.sent
		if f.errno == 0 {
			continue
		}
		m := o.msgs[next]
		switch {
		case f.errno == unix.EAGAIN:
			o.lose(LossFull, segmentsOf(o.msgs[next:o.count]))
			return
		case m.segments > 1 && cannotCut(f.errno):
			if f.errno == unix.EIO {
				s.segments.Store(false)
			}
			if !f.single(o, m) {
				o.lose(LossFull, segmentsOf(o.msgs[next+1:o.count]))
				return
			}
			for i := next + 1; i < o.count; i++ { // single has used their places
				f.put(i, o.msgs[i], o, s.v6)
			}
		default:
			o.lose(LossRefused, m.segments)
		}
		next++
	}
}

// cannotCut tells the errors of a message that is to be cut. EIO: the device
// computes no checksums, and so can cut nothing. EINVAL, EMSGSIZE: a segment is
// longer than this path's MTU.
func cannotCut(errno syscall.Errno) bool {
	return errno == unix.EIO || errno == unix.EINVAL || errno == unix.EMSGSIZE
}

func segmentsOf(msgs []message) (n int) {
	for _, m := range msgs {
		n += m.segments
	}
	return n
}

// put makes m the i-th message of the next call.
func (f *fastOut) put(i int, m message, o *Out, v6 bool) {
	h := &f.hdrs[i].hdr
	h.Namelen = setAddress(&f.names[i], m.to, v6)
	f.iovs[i].Base = &o.buf[m.start]
	f.iovs[i].SetLen(m.end - m.start)
	if m.segments == 1 {
		h.Control = nil
		h.SetControllen(0)
		return
	}
	f.cuts[i].size = uint16(m.segment)
	h.Control = (*byte)(unsafe.Pointer(&f.cuts[i]))
	h.SetControllen(unix.CmsgSpace(2))
}

// single sends the segments of a message that the kernel will not cut. It
// reports whether there was room for them.
func (f *fastOut) single(o *Out, m message) bool {
	v6 := o.socket.fast.v6
	count := 0
	for at := m.start; at < m.end; at += m.segment {
		f.put(count, message{to: m.to, start: at, end: min(at+m.segment, m.end), segments: 1}, o, v6)
		count++
	}
	for next := 0; next < count; next++ {
		f.first, f.last = next, count
		if err := o.socket.fast.raw.Control(f.call); err != nil {
			o.lose(LossClosed, count-next)
			return true
		}
		runtime.KeepAlive(o)
		next += f.sent
		switch {
		case next == count:
		case f.errno == unix.EAGAIN:
			o.lose(LossFull, count-next)
			return false
		default:
			o.lose(LossRefused, 1)
		}
	}
	return true
}

// transmit sends messages first to last and notes how many went, and why the
// next one did not.
func (f *fastOut) transmit(fd uintptr) {
	f.sent, f.errno = 0, 0
	for f.first+f.sent < f.last {
		n, errno := f.send(fd, f.hdrs[f.first+f.sent:f.last])
		switch {
		case errno == 0:
			f.sent += n
		case errno == unix.EINTR:
		case errno == unix.EAGAIN && f.idle > 0:
			began := time.Now()
			f.wait(fd, f.idle)
			f.idle -= max(time.Since(began), time.Microsecond)
		default:
			f.errno = errno
			return
		}
	}
}
