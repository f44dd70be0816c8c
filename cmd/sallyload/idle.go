package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"sallyport/sfu/peer"
)

const (
	allocateAtOnce = 32
	allocateTime   = 30 * time.Second
	idleTime       = 3 * time.Second // for the memory of the handshakes to be given back
)

// idle makes n allocations over TLS and returns what memory they take.
func (s *subject) idle(ctx context.Context, n int) (x Idle, err error) {
	x.Allocations = n
	if x.BeforeMiB, err = s.resident(); err != nil {
		return x, err
	}
	servers, err := s.turn.servers(peer.TURNTLS, s.server.announced)
	if err != nil {
		return x, err
	}
	made := make([]*peer.Allocation, n)
	defer func() {
		for _, a := range made {
			if a != nil {
				_ = a.Close()
			}
		}
	}()
	var all sync.WaitGroup
	var mu sync.Mutex // guards the following
	var failed error
	slots := make(chan struct{}, allocateAtOnce)
	for i := range made {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(ctx, allocateTime)
			defer cancel()
			a, err := peer.Allocate(ctx, peer.Config{Path: peer.TURNTLS, ICEServers: servers})
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				x.Failed++
				failed = err
				return
			}
			made[i] = a
		})
	}
	all.Wait()
	sleep(ctx, idleTime)
	if x.MemoryMiB, err = s.resident(); err == nil && x.Failed > 0 {
		err = fmt.Errorf("%d of %d allocations failed, one of them: %w", x.Failed, n, failed)
	}
	return x, err
}

// resident is the memory of the server's processes in MiB.
func (s *subject) resident() (total float64, err error) {
	all, err := readProcesses(s.server.pids)
	for _, p := range all {
		total += mib(p.memory)
	}
	return total, err
}
