package sfu

import (
	"errors"
	"io"
	"time"

	"github.com/pion/webrtc/v3"
	"golang.org/x/time/rate"

	"sallyport/sfu/wire"
)

// maxReported bounds the round-trip time and jitter that clients report, in
// seconds: what is beyond says nothing about a call.
const maxReported = 60

const (
	// maxMessage is the longest message of a data channel, what browsers send at
	// most. Longer ones are dropped. After one of more than keptMessage its memory
	// goes back to the system.
	maxMessage  = 64 << 10
	keptMessage = 8 << 10
)

// messagesPerSecond and messagesAtOnce limit what of a data channel is looked at:
// an offer must be inflated, to a thousand times its length perhaps, before
// anything is known of it. Each messageBytes count as one message more. Clients
// ping once a second, and ask for the lock 20 times a second while they wait for
// it; the longest message has 64 KiB.
const (
	messagesPerSecond = 100
	messagesAtOnce    = 300
	messageBytes      = 256
)

// open takes over a data channel the participant has opened: its last one is the
// one that is spoken on.
func (s *Session) open(d *webrtc.DataChannel) {
	if s.channels.Add(1) > maxChannels {
		s.end("too many data channels")
		return
	}
	d.OnOpen(func() {
		raw, err := d.Detach()
		if err != nil || !s.beginTrack() {
			s.log.Debug("read data channel", "err", err)
			return
		}
		s.postWait(func() { s.activate(d) })
		go func() {
			defer s.tracks.Done()
			s.listen(d, raw)
		}()
	})
}

// A messageReader is a data channel that pion does not read: its own reader would
// keep 64 KiB for each.
type messageReader interface {
	ReadDataChannel(b []byte) (n int, isString bool, err error)
}

// listen reads a data channel until it is closed. Its buffer holds the longest
// message there may be, of which most participants never need more than a page.
func (s *Session) listen(d *webrtc.DataChannel, raw messageReader) {
	pace := rate.NewLimiter(messagesPerSecond, messagesAtOnce)
	buf, free := newPages(maxMessage)
	defer func() { free() }()
	for {
		n, text, err := raw.ReadDataChannel(buf)
		if err == nil {
			s.media.lively.Store(true)
		}
		switch {
		case err != nil && !errors.Is(err, io.ErrShortBuffer):
			// A client closes it only with its connection: no need to wait for ICE
			// to fail.
			s.postWait(func() {
				if s.channel == d {
					s.end("participant closed the connection")
				}
			})
			return
		case err != nil || !pace.AllowN(time.Now(), 1+n/messageBytes):
			s.server.metrics.errors.WithLabelValues(s.member.Group, "signaling").Inc()
		default:
			s.hear(d, buf[:n], text)
		}
		if n > keptMessage {
			free()
			buf, free = newPages(maxMessage)
		}
	}
}

// hear takes one message of a data channel. It keeps nothing of b.
func (s *Session) hear(d *webrtc.DataChannel, b []byte, text bool) {
	if text {
		if string(b) == "ping" && d.BufferedAmount() < maxReplies { // mobile apps of old
			_ = d.SendText("pong")
		}
		return
	}
	msg, err := wire.DecodeChannel(b)
	if err != nil {
		s.log.Debug("decode data channel message", "err", err)
		return
	}
	if msg.Type == wire.ChannelPing { // the most frequent by far: no need to wake run
		s.answerPing(d)
		return
	}
	s.postWait(func() { s.message(msg) })
}

// answerPing answers on the channel that was asked, unless the participant asks
// without reading the answers.
func (s *Session) answerPing(d *webrtc.DataChannel) {
	if d.BufferedAmount() >= maxReplies {
		return
	}
	b, err := wire.ChannelMessage{Type: wire.ChannelPong}.Append(nil)
	if err == nil {
		err = d.Send(b)
	}
	if err != nil {
		s.log.Debug("answer ping", "err", err)
	}
}

// activate begins to offer tracks.
func (s *Session) activate(d *webrtc.DataChannel) {
	s.channel = d
	if s.phase != answered {
		return
	}
	s.phase, s.stale = active, true
	s.server.metrics.dcOpen.WithLabelValues(s.member.Group).Observe(time.Since(s.answeredAt).Seconds())
	early := s.early
	s.early = nil
	for _, o := range early {
		s.describe(o, overSignal)
	}
}

// message handles one message of the data channel (rtcd protocol §4.5).
func (s *Session) message(m wire.ChannelMessage) {
	if m.Type == wire.ChannelLock && s.channel.BufferedAmount() >= maxReplies {
		return // it asks without reading the answers
	}
	met, group := s.server.metrics, s.member.Group
	switch m.Type {
	case wire.ChannelSDP:
		s.describe(m.SDP, overChannel)
	case wire.ChannelLock:
		s.requestLock(time.Now())
	case wire.ChannelUnlock:
		if s.lock == participant { // clients unlock after every answer, held or not
			s.unlock(time.Now())
		}
	case wire.ChannelLoss:
		if m.Value >= 0 && m.Value <= 1 {
			met.clientLoss.WithLabelValues(group).Observe(m.Value)
		}
	case wire.ChannelRTT:
		if m.Value >= 0 && m.Value <= maxReported {
			met.clientRTT.WithLabelValues(group).Observe(m.Value)
		}
	case wire.ChannelJitter:
		if m.Value >= 0 && m.Value <= maxReported {
			met.clientJit.WithLabelValues(group).Observe(m.Value)
		}
	}
}

// requestLock gives the participant the signaling lock if it is free, and says
// which it is.
func (s *Session) requestLock(now time.Time) {
	granted := s.lock == nobody
	if granted {
		s.lock, s.lockSince = participant, now
	} else {
		s.hurry(now) // clients give up after 5 s, and with that their microphone
	}
	s.sendChannel(wire.ChannelMessage{Type: wire.ChannelLock, Granted: &granted})
}

func (s *Session) sendChannel(m wire.ChannelMessage) {
	b, err := m.Append(nil)
	if err == nil {
		err = s.channel.Send(b)
	}
	if s.channel.BufferedAmount() > maxUnread {
		s.fail("data channel is not read", "signaling", nil)
	}
	if err != nil {
		s.log.Debug("send on data channel", "err", err)
	}
}
