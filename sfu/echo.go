package sfu

import (
	"context"
	"fmt"
	"net"
	"sync"

	"github.com/pion/stun"
)

// Echo answers STUN Binding requests (RFC 8489 §12) that come through the media
// sockets and hairpins for an ICE user fragment that no session has, until ctx
// ends: whoever gets an answer knows that packets reach the SFU and come back.
// Nobody answers other requests that are not part of a call, so ufrag should be
// as hard to guess as a session's. It returns nil at the end of ctx, an error if
// there is nothing to listen on or Run has ended.
func (s *Server) Echo(ctx context.Context, ufrag string) error {
	addresses := s.mux.GetListenAddresses()
	if len(addresses) == 0 {
		return fmt.Errorf("answer %s: no media address is advertised", ufrag)
	}
	var readers sync.WaitGroup
	defer readers.Wait()
	defer s.mux.RemoveConnByUfrag(ufrag)
	for _, a := range addresses {
		conn, err := s.mux.GetConn(ufrag, a)
		if err != nil {
			return fmt.Errorf("answer %s: %w", ufrag, err)
		}
		readers.Go(func() { echo(conn) })
	}
	<-ctx.Done()
	return nil
}

// echo answers until conn is closed.
func echo(conn net.PacketConn) {
	buf := make([]byte, maxDatagram)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		m := stun.Message{Raw: buf[:n]}
		if m.Decode() != nil || m.Type != stun.BindingRequest {
			continue
		}
		at := localAddrPort(from)
		answer, err := stun.Build(&m, stun.BindingSuccess,
			&stun.XORMappedAddress{IP: at.Addr().AsSlice(), Port: int(at.Port())}, stun.Fingerprint)
		if err != nil {
			continue
		}
		_, _ = conn.WriteTo(answer.Raw, from) // like everything UDP, it may get lost
	}
}
