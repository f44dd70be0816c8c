package peer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sallyport/sfu/wire"
)

const (
	lockRetry     = 100 * time.Millisecond
	lockTimeout   = 5 * time.Second
	answerTimeout = 10 * time.Second
)

var (
	// ErrLocked means that the server kept its signalling lock for 5 s.
	ErrLocked = errors.New("signalling lock is held")
	// ErrUnanswered means that the server did not answer an offer for 10 s. It
	// ends the peer, since pion cannot take the offer back.
	ErrUnanswered = errors.New("offer was not answered")
)

// exclusively calls f while nobody else changes what is published.
func (p *Peer) exclusively(ctx context.Context, f func() error) error {
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
		return f()
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-p.ctx.Done():
		return context.Cause(p.ctx)
	}
}

// negotiate takes the server's lock, calls change and makes an offer of the
// outcome.
func (p *Peer) negotiate(ctx context.Context, change func() error) error {
	if err := p.lock(ctx); err != nil {
		return err
	}
	p.sdp.Lock()
	err := change()
	p.sdp.Unlock()
	if err == nil {
		err = p.offer(ctx)
	}
	return errors.Join(err, p.say(wire.ChannelMessage{Type: wire.ChannelUnlock}))
}

// offer makes an offer and returns when its answer has been applied. If that
// does not come, the peer ends.
func (p *Peer) offer(ctx context.Context) error {
	answer := make(chan error, 1)
	if err := p.sendOffer(answer); err != nil {
		p.end(err)
		return err
	}
	timeout := time.NewTimer(answerTimeout)
	defer timeout.Stop()
	var err error
	select {
	case err = <-answer:
		if err == nil {
			return nil
		}
	case <-timeout.C:
		err = ErrUnanswered
	case <-ctx.Done():
		err = fmt.Errorf("%w: %w", ErrUnanswered, context.Cause(ctx))
	case <-p.ctx.Done():
		return context.Cause(p.ctx)
	}
	p.end(err)
	return err
}

func (p *Peer) sendOffer(answer chan error) error {
	p.sdp.Lock()
	defer p.sdp.Unlock()
	offer, err := p.pc.CreateOffer(nil)
	if err != nil {
		return fmt.Errorf("create offer: %w", err)
	}
	if err := p.pc.SetLocalDescription(offer); err != nil {
		return fmt.Errorf("set offer: %w", err)
	}
	p.mu.Lock()
	p.answer = answer
	p.mu.Unlock()
	if err := p.describeUs(offer); err != nil {
		return err
	}
	p.mu.Lock()
	p.offered = true
	early := p.gathered
	p.gathered = nil
	p.mu.Unlock()
	for _, c := range early {
		if err := p.rtc(wire.KindICE, wire.EncodeBareCandidate(c)); err != nil {
			return err
		}
	}
	return nil
}

// lock takes the server's signalling lock, asking again while it is held.
func (p *Peer) lock(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, lockTimeout, ErrLocked)
	defer cancel()
	retry := time.NewTimer(0)
	defer retry.Stop()
	for {
		select {
		case <-retry.C:
		case <-ctx.Done():
			return fmt.Errorf("take signalling lock: %w", context.Cause(ctx))
		case <-p.ctx.Done():
			return context.Cause(p.ctx)
		}
		granted, err := p.askLock(ctx)
		if err != nil || granted {
			return err
		}
		retry.Reset(lockRetry)
	}
}

// askLock asks once. When it gives up before the server has spoken, the late
// answer is handed to lockAnswered with nobody waiting.
func (p *Peer) askLock(ctx context.Context) (bool, error) {
	granted := make(chan bool, 1)
	p.setGranted(granted)
	if err := p.say(wire.ChannelMessage{Type: wire.ChannelLock}); err != nil {
		p.setGranted(nil)
		return false, err
	}
	select {
	case ok := <-granted:
		return ok, nil
	case <-p.ctx.Done():
		return false, context.Cause(p.ctx)
	case <-ctx.Done():
	}
	p.setGranted(nil)
	select {
	case ok := <-granted: // it came in the last moment
		return ok, nil
	default:
		return false, fmt.Errorf("take signalling lock: %w", context.Cause(ctx))
	}
}

func (p *Peer) setGranted(c chan bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.granted = c
}

// lockAnswered passes the server's answer on, and gives back a lock that nobody
// waits for any more.
func (p *Peer) lockAnswered(granted bool) error {
	p.mu.Lock()
	waiting := p.granted
	p.granted = nil
	if waiting != nil {
		waiting <- granted // has room for one
	}
	p.mu.Unlock()
	if waiting == nil && granted {
		return p.say(wire.ChannelMessage{Type: wire.ChannelUnlock})
	}
	return nil
}
