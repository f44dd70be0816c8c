package main

import (
	"context"
	"fmt"
	"sync"

	"sallyport/sfu/peer"
)

// runBulk starts what receives for the participants that only count. The
// function it returns ends it. Without it, as elsewhere than on Linux, all
// participants verify.
func (l *load) runBulk() func() {
	bulk, err := peer.NewBulk()
	if err != nil {
		return func() {}
	}
	l.bulk = bulk
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := bulk.Run(ctx); err != nil {
			fmt.Fprintln(l.stderr, "sallyload:", err)
		}
	})
	return func() {
		cancel()
		running.Wait()
	}
}

// bulkFor returns what receives for participant i of a call, nil for those who
// do it themselves.
func (l *load) bulkFor(i int) *peer.Bulk {
	if l.verifies(i) {
		return nil
	}
	return l.bulk
}

// join lets everyone in, one every ramp, call by call.
func (l *load) join(ctx context.Context) {
	var everyone sync.WaitGroup
	slots := make(chan struct{}, joinAtOnce)
	for call := range l.rooms {
		id := peer.NewID()
		for i := range l.users {
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				everyone.Wait()
				return
			}
			everyone.Go(func() {
				defer func() { <-slots }()
				if err := l.enter(ctx, call, i, id); err != nil && ctx.Err() == nil {
					l.fail(err)
				}
			})
			sleep(ctx, l.ramp)
		}
	}
	everyone.Wait()
}

// enter joins participant i of a call and publishes what it has to.
func (l *load) enter(ctx context.Context, call, i int, id string) error {
	p, err := peer.Join(ctx, l.mux, peer.Config{
		Call: id, Channel: id, Path: l.path, Port: l.port, ICEServers: l.servers,
		DCSignaling: l.channel, Feedback: l.feedback, Window: &l.window, SRTP: l.srtp, Bulk: l.bulkFor(i),
	})
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.rooms[call] = append(l.rooms[call], p)
	l.mu.Unlock()
	l.joined.Add(1)
	ctx, cancel := context.WithTimeout(ctx, publishTime)
	defer cancel()
	if err := l.publish(ctx, p, call, i); err != nil {
		l.joined.Add(-1)
		return err
	}
	return nil
}

// publish makes participant i of a call publish what it has to.
func (l *load) publish(ctx context.Context, p *peer.Peer, call, i int) error {
	video := peer.Video{Bitrate: l.videoBitrate, FPS: 20}
	for _, step := range []struct {
		due bool
		do  func() error
	}{
		{l.speaks(i), func() error { return p.Unmute(ctx) }},
		{l.shares(i), func() error { return p.ShareScreen(ctx, video) }},
		{l.films(i), func() error { return p.CameraOn(ctx, video) }},
	} {
		if !step.due {
			continue
		}
		if err := step.do(); err != nil {
			return err
		}
		l.mu.Lock()
		l.live[call]++
		l.mu.Unlock()
	}
	return nil
}

// due returns how many tracks those who are there should receive.
func (l *load) due() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for call, members := range l.rooms {
		n += l.live[call] * max(len(members)-1, 0)
	}
	return n
}
