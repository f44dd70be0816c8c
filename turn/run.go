package turn

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"net"
	"runtime"
	"time"

	"golang.org/x/sync/errgroup"
)

// acceptBackoff is the pause after an Accept that failed for now, for want of
// file descriptors perhaps.
const acceptBackoff = 50 * time.Millisecond

// serving is what one Run is made of.
type serving struct {
	*Server
	shards *shards
	lobby  *lobby
	group  *errgroup.Group
}

// Run serves TURN on connections from the listeners and on the packet sockets
// until ctx ends, and returns nil then. It closes all of them, every connection
// and every allocation, and returns after its goroutines have.
//
// A connection with a method Secure() bool that returns true counts as TLS,
// any other as TCP. Its RemoteAddr must be a *net.TCPAddr. Listeners that are
// closed by someone else just yield no more connections.
func (s *Server) Run(ctx context.Context, streams []net.Listener, packets []net.PacketConn) error {
	if err := s.peers.lookAround(); err != nil { // before clients come
		s.log.Warn("look up addresses of this machine", "err", err)
	}
	run := &serving{Server: s, shards: &shards{seed: maphash.MakeSeed()}, lobby: newLobby()}
	key := newInnerKey()
	for range runtime.GOMAXPROCS(0) {
		sh := newShard(s.ids.Add(1), &s.metrics.drops)
		sh.ended = s.relays.Done
		sh.guard = &guard{server: s, lobby: run.lobby, shard: sh, pion: pionSide{key: key}}
		run.shards.all = append(run.shards.all, sh)
	}
	s.relays.Add(len(run.shards.all)) // each shard, as long as it may make relays
	pion, err := s.newPion(run.shards.all, key)
	if err != nil {
		s.relays.Add(-len(run.shards.all)) // pion checks before it starts anything
		return fmt.Errorf("start turn: %w", err)
	}
	run.group, ctx = errgroup.WithContext(ctx)
	for _, ln := range streams {
		run.group.Go(func() error { return run.accept(ctx, ln) })
	}
	for _, conn := range packets {
		run.group.Go(func() error {
			newSocket(conn).run(ctx, run.shards, s.metrics)
			return nil
		})
	}
	run.group.Go(func() error {
		s.peers.keepResolved(ctx, func(host string, err error) { s.log.Warn("resolve media server", "host", host, "err", err) })
		<-ctx.Done()
		return nil
	})
	err = run.group.Wait()
	_ = pion.Close() // closes the shards, which never fails; ends read loops and allocations
	s.relays.Wait()
	return err
}

// accept serves the connections of one listener until ctx ends.
func (run *serving) accept(ctx context.Context, ln net.Listener) error {
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	for {
		conn, err := ln.Accept()
		switch {
		case ctx.Err() != nil:
			if conn != nil {
				_ = conn.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return nil
		case err != nil:
			run.log.Warn("accept turn connection", "err", err)
			select {
			case <-time.After(acceptBackoff):
			case <-ctx.Done():
			}
		default:
			run.serve(ctx, conn)
		}
	}
}

// serve starts a connection, if there is room for one more stranger.
func (run *serving) serve(ctx context.Context, conn net.Conn) {
	remote := addrPort(conn.RemoteAddr())
	from := run.counted(remote.Addr())
	if !remote.IsValid() || !run.lobby.enter(from) {
		run.metrics.drops.lobby.Inc()
		_ = conn.Close()
		return
	}
	via := overTCP
	if c, ok := conn.(interface{ Secure() bool }); ok && c.Secure() {
		via = overTLS
	}
	st := &stream{
		conn: conn, network: from, lobby: run.lobby, drops: &run.metrics.drops, patience: run.patience, records: via == overTLS, out: newOutbox(&run.metrics.drops),
	}
	st.wire = newWire(conn)
	way := source{via: st, addr: remote}
	st.client = newClient(run.ids.Add(1), way, via)
	st.client.stream = st
	tune(conn)
	st.shard = run.shards.of(way)
	run.group.Go(func() error {
		run.streams.Add(1)
		run.metrics.connections[via].Inc()
		st.run(ctx)
		run.metrics.connections[via].Dec()
		run.streams.Add(-1)
		return nil
	})
}
