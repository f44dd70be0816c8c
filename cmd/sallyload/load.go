package main

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/sfu/peer"
)

const (
	joinAtOnce   = 64                     // joins under way
	publishTime  = 30 * time.Second       // for one participant's tracks
	leaveTime    = 30 * time.Second       // for everyone to leave
	inFlight     = 500 * time.Millisecond // for the last packets to arrive
	pollInterval = 50 * time.Millisecond
)

// A load is one run: its participants and what is known of them.
type load struct {
	options
	stderr  io.Writer
	server  *server
	servers []peer.ICEServer
	window  peer.Window
	mux     *peer.Mux
	bulk    *peer.Bulk // nil if all participants verify

	phase          atomic.Pointer[string]
	joined, failed atomic.Int64

	mu     sync.Mutex     // guards the following
	rooms  [][]*peer.Peer // by call
	live   []int          // tracks published, by call
	errors map[string]int // why joins failed

	left bool // only run uses it
}

// run does it all. The error means that nothing could be measured; failed joins
// are in the report.
func (l *load) run(ctx context.Context) (*Report, error) {
	idle, err := readProcesses(l.server.pids)
	if err != nil {
		return nil, err
	}
	if l.servers, err = l.turn.servers(l.path, l.server.announced); err != nil {
		return nil, err
	}
	l.link.URL = l.server.url
	mux, err := peer.DialMux(ctx, l.link)
	if err != nil {
		return nil, err
	}
	defer mux.Close()
	defer l.runBulk()()
	l.mux, l.errors = mux, map[string]int{}
	l.rooms, l.live = make([][]*peer.Peer, l.calls), make([]int, l.calls)
	defer l.leave()
	stop := l.showProgress()
	defer stop()

	l.setPhase("joining")
	l.join(ctx)
	l.setPhase("waiting for tracks")
	want := l.calls * l.published() * (l.users - 1)
	l.poll(ctx, l.settle, func() bool { return l.tracks() >= l.due() })
	l.setPhase("warming up")
	sleep(ctx, l.warm)
	l.setPhase("measuring")
	m, err := l.measure(ctx)
	if err != nil {
		return nil, err
	}
	m.idle, m.wanted = idle, want
	r := l.report(m)
	r.Leaves = l.leave()
	return r, nil
}

func (l *load) fail(err error) {
	l.failed.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.errors) < 10 { // the report stays short
		l.errors[reason(err)]++
	}
}

// tracks returns the number of live tracks that participants receive.
func (l *load) tracks() int {
	n := 0
	l.each(func(p *peer.Peer) {
		for _, t := range p.Tracks() {
			if !t.Ended() {
				n++
			}
		}
	})
	return n
}

// each calls f for every participant.
func (l *load) each(f func(*peer.Peer)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, call := range l.rooms {
		for _, p := range call {
			f(p)
		}
	}
}

// A measurement is what one run yielded besides the participants' counters.
type measurement struct {
	wanted              int // tracks
	idle, before, after []process
	self                [2]process
	took                time.Duration
	ended               time.Time
}

// measure opens the window for the duration or until ctx ends.
func (l *load) measure(ctx context.Context) (m measurement, err error) {
	if m.before, err = readProcesses(l.server.pids); err != nil {
		return m, err
	}
	profiled, err := l.startProfiles(ctx)
	if err != nil {
		return m, err
	}
	m.self[0] = readSelf()
	began := time.Now()
	l.window.Open()
	sleep(ctx, l.duration)
	l.window.Close()
	m.ended = time.Now()
	m.took = m.ended.Sub(began)
	m.self[1] = readSelf()
	if m.after, err = readProcesses(l.server.pids); err != nil {
		return m, err
	}
	l.setPhase("collecting")
	if err := profiled(); err != nil {
		return m, err
	}
	// An interrupt must not turn packets on their way into loss.
	l.poll(context.WithoutCancel(ctx), inFlight, func() bool {
		p := l.packets()
		return p.Received >= p.Expected
	})
	return m, nil
}

// leave takes everyone out at once. Only the first call does anything.
func (l *load) leave() (out Leaves) {
	if l.left {
		return out
	}
	l.left = true
	l.setPhase("leaving")
	ctx, cancel := context.WithTimeout(context.Background(), leaveTime)
	defer cancel()
	var everyone sync.WaitGroup
	var mu sync.Mutex // guards times and out
	var times peer.Histogram
	l.each(func(p *peer.Peer) {
		everyone.Go(func() {
			began := time.Now()
			err := p.Leave(ctx)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				out.Failed++
				return
			}
			times.Add(time.Since(began))
		})
	})
	everyone.Wait()
	out.TimeUS = spread(&times)
	return out
}

// poll waits until met holds, at most for the given time.
func (l *load) poll(ctx context.Context, at time.Duration, met func() bool) {
	ctx, cancel := context.WithTimeout(ctx, at)
	defer cancel()
	for ctx.Err() == nil && !met() {
		sleep(ctx, pollInterval)
	}
}

// sleep waits for d or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

func (l *load) setPhase(name string) { l.phase.Store(&name) }

// status is the progress line.
func (l *load) status() string {
	phase := l.phase.Load()
	if phase == nil {
		return ""
	}
	line := fmt.Sprintf("%s: %d of %d joined, %d failed, %d tracks", *phase,
		l.joined.Load(), l.calls*l.users, l.failed.Load(), l.tracks())
	if p := l.packets(); p.Received > 0 {
		line += fmt.Sprintf(", %d packets", p.Received)
	}
	return line
}
