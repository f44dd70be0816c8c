package peer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/webrtc/v3"

	"sallyport/sfu/wire"
)

const (
	joinTimeout  = 15 * time.Second // what the web client allows
	pingInterval = time.Second
	inboxSize    = 512 // messages of the server not yet looked at
)

var (
	// ErrEnded means that the server ended the session.
	ErrEnded = errors.New("session ended by the server")
	// ErrFailed means that ICE or DTLS gave up or the other side closed.
	ErrFailed = errors.New("media connection failed")
	// ErrNoRelay means that no TURN server gave a relay address: not reachable,
	// or it refused the credentials.
	ErrNoRelay = errors.New("no TURN server gave a relay address")
)

// A Peer is a participant of a call. Its methods may be called from any
// goroutine; those that change what is published wait for each other.
type Peer struct {
	config Config
	mux    *Mux
	pc     *webrtc.PeerConnection
	dc     *webrtc.DataChannel
	inbox  chan event
	turn   chan struct{} // held by whoever changes what is published
	began  time.Time

	ctx    context.Context // of the session, ended with the reason
	cancel context.CancelCauseFunc
	work   sync.WaitGroup // every goroutine but run
	done   chan struct{}

	connected, opened, rtt atomic.Int64 // nanoseconds: since joining, since joining, of the last ping

	sdp  sync.Mutex        // held while the connection's descriptions change; guards the following
	held *wire.Description // offer of the server that came while we had our own

	mu       sync.Mutex // guards the following; taken after sdp
	ending   bool       // no more goroutines
	changed  chan struct{}
	media    map[string]wire.Media
	tracks   []*Track
	voice    bool
	offered  bool                      // the first offer has been sent
	gathered []wire.Candidate          // ours, until then
	local    int                       // candidates of ours
	remote   []webrtc.ICECandidateInit // the server's, until there is a remote description
	answer   chan error                // of whoever waits for an answer
	granted  chan bool                 // of whoever waits for the lock
	pinged   time.Time                 // zero when no pong is awaited
	sources  map[string][]*source      // what is published, by type
	retired  map[string]Sent           // counts of sources that are gone
}

// An event is something the server said: one of the two.
type event struct {
	envelope *wire.Envelope
	channel  *wire.ChannelMessage
}

// Join enters the call and returns when media is connected and the data channel
// open, or within 15 s. The error says how far it got. The caller closes the
// peer.
func Join(ctx context.Context, m *Mux, c Config) (*Peer, error) {
	c.complete()
	p := &Peer{
		config: c, mux: m,
		inbox: make(chan event, inboxSize), turn: make(chan struct{}, 1), done: make(chan struct{}),
		began: time.Now(), changed: make(chan struct{}),
		sources: map[string][]*source{}, retired: map[string]Sent{},
	}
	p.ctx, p.cancel = context.WithCancelCause(context.Background())
	open, err := p.connect()
	if err == nil {
		if err = m.add(p); err != nil {
			_ = p.pc.Close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("join session %s: %w", c.Session, err)
	}
	go p.run()
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	if err := p.enter(ctx, open); err != nil {
		err = fmt.Errorf("join session %s over %s: %w (connection %s, %d local candidates)",
			c.Session, c.Path, err, p.pc.ConnectionState(), p.candidates())
		_ = m.link.Send(wire.Envelope{Type: wire.TypeLeave, Session: c.Session})
		p.end(err)
		<-p.done
		return nil, err
	}
	return p, nil
}

// connect makes the peer connection and its data channel. The channel it
// returns is closed when that is open.
func (p *Peer) connect() (<-chan struct{}, error) {
	pc, err := newConnection(&p.config)
	if err != nil {
		return nil, err
	}
	dc, err := pc.CreateDataChannel("calls-dc", nil)
	if err != nil {
		_ = pc.Close()
		return nil, fmt.Errorf("create data channel: %w", err)
	}
	p.pc, p.dc = pc, dc
	open := make(chan struct{})
	dc.OnOpen(func() {
		p.opened.Store(int64(time.Since(p.began)))
		close(open)
	})
	dc.OnClose(func() { p.end(ErrEnded) }) // unless it was us, who said why before
	dc.OnMessage(p.hear)
	p.watch()
	return open, nil
}

// enter does what a client does after joining: it makes the first offer and
// waits until the data channel is open.
func (p *Peer) enter(ctx context.Context, open <-chan struct{}) error {
	if err := p.mux.link.Send(p.config.join()); err != nil {
		return err
	}
	if err := p.offer(ctx); err != nil {
		return err
	}
	select {
	case <-open:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for data channel: %w", context.Cause(ctx))
	case <-p.ctx.Done():
		return context.Cause(p.ctx)
	}
}

// watch sets the connection's callbacks, which run on its goroutines.
func (p *Peer) watch() {
	p.pc.OnConnectionStateChange(func(s webrtc.PeerConnectionState) {
		switch s {
		case webrtc.PeerConnectionStateConnected:
			p.connected.CompareAndSwap(0, int64(time.Since(p.began)))
		case webrtc.PeerConnectionStateFailed, webrtc.PeerConnectionStateClosed:
			p.end(ErrFailed)
		}
	})
	p.pc.OnICECandidate(func(c *webrtc.ICECandidate) {
		switch {
		case c != nil:
			p.trickle(wire.Candidate(c.ToJSON()))
		case p.config.Path.relayed() && p.candidates() == 0:
			p.end(ErrNoRelay) // all have been gathered, so there will be none
		}
	})
	p.pc.OnTrack(func(remote *webrtc.TrackRemote, receiver *webrtc.RTPReceiver) {
		p.spawn(func() { p.receive(remote, receiver) })
	})
}

// run owns the peer: it does what the server says until the session ends, and
// then takes everything down.
func (p *Peer) run() {
	ping := time.NewTicker(pingInterval)
	defer ping.Stop()
	if p.config.NoPings {
		ping.Stop()
	}
	for p.ctx.Err() == nil {
		select {
		case <-p.ctx.Done():
		case e := <-p.inbox:
			p.obey(e)
		case <-ping.C:
			p.ping()
		}
	}
	p.mux.remove(p)
	p.mu.Lock()
	p.ending = true
	p.mu.Unlock()
	if err := p.pc.GracefulClose(); err != nil {
		p.config.Logger.Debug("peer connection closed badly", "err", err)
	}
	p.work.Wait()
	p.config.OnClosed(context.Cause(p.ctx))
	close(p.done)
}

// spawn runs f on a goroutine that ends before the peer does, or not at all.
func (p *Peer) spawn(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ending {
		p.work.Go(f)
	}
}

// end makes run take the peer down. The first reason counts.
func (p *Peer) end(reason error) { p.cancel(reason) }

// deliver queues what the server said. It never blocks; a peer that does not
// keep up with its signalling has lost it and ends.
func (p *Peer) deliver(e event) {
	select {
	case p.inbox <- e:
	default:
		p.end(ErrSlow)
	}
}

// Leave tells the server, waits for it to confirm, and closes the peer. The
// error is ctx's if the server did not confirm.
func (p *Peer) Leave(ctx context.Context) error {
	err := p.mux.link.Send(wire.Envelope{Type: wire.TypeLeave, Session: p.config.Session})
	if err == nil {
		select {
		case <-p.ctx.Done():
		case <-p.mux.link.Done():
			err = fmt.Errorf("leave session %s: %w", p.config.Session, p.mux.link.Err())
		case <-ctx.Done():
			err = fmt.Errorf("leave session %s: %w", p.config.Session, context.Cause(ctx))
		}
	}
	return errors.Join(err, p.Close())
}

// Close ends the connection without a word to the rtcd API, as a browser that
// is closed does, and returns when every goroutine of the peer has ended.
func (p *Peer) Close() error {
	p.end(ErrClosed)
	<-p.done
	return nil
}

// Done is closed when the peer has ended for any reason and nothing of it runs.
func (p *Peer) Done() <-chan struct{} { return p.done }

// Err returns why the peer ended: ErrClosed after Close, nil while it lives.
func (p *Peer) Err() error { return context.Cause(p.ctx) }

// Session returns the peer's session ID.
func (p *Peer) Session() string { return p.config.Session }
