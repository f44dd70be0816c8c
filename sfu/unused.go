package sfu

import "slices"

// buffersKept is after how many reports, one a second, a session gives back the
// memory of buffers that ICE does not need now: its checks are over by then.
const buffersKept = 5

// giveBack frees the memory of the buffers that a session's ICE agent reads into: 8 KiB
// for each address that is advertised, of which one is in use from now on. A
// datagram that comes for another has the system give a page again.
func (m *mux) giveBack(ufrag string) {
	m.mu.RLock()
	conns := slices.Clone(m.conns[ufrag])
	m.mu.RUnlock()
	for _, c := range conns {
		c.in.giveBack()
	}
	if m.tcp != nil {
		m.tcp.giveBack(ufrag)
	}
}

func (m *tcpMux) giveBack(ufrag string) {
	m.mu.Lock()
	conns := slices.Clone(m.conns[ufrag])
	m.mu.Unlock()
	for _, c := range conns {
		c.in.giveBack()
	}
}

// giveBack frees the memory of the buffer of who waits in pop. That may write to
// all of a buffer it is given (io.Reader), and zeros are what it gets.
func (q *queue) giveBack() {
	q.mu.Lock()
	defer q.mu.Unlock()
	discardPages(q.unused)
}
