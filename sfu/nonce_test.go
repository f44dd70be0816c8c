package sfu

import (
	"bytes"
	"encoding/binary"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/dtls/v2"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v3"
)

// A nonceWatch looks at all RTP that the server sends to one participant. The key
// is the same for all of it, so SSRC and index are what makes a nonce.
type nonceWatch struct {
	t  *testing.T
	mu sync.Mutex // guards the following

	sent     map[uint32]map[uint32][]byte // by SSRC and index
	newest   map[uint32]uint32
	repeated int
}

func newNonceWatch(t *testing.T) *nonceWatch {
	return &nonceWatch{t: t, sent: map[uint32]map[uint32][]byte{}, newest: map[uint32]uint32{}}
}

func (w *nonceWatch) see(p []byte) {
	if len(p) < 12 || p[0]>>6 != 2 || !isRTP(p) {
		return
	}
	seq, ssrc := binary.BigEndian.Uint16(p[2:]), binary.BigEndian.Uint32(p[8:])
	w.mu.Lock()
	defer w.mu.Unlock()
	newest, begun := w.newest[ssrc]
	if !begun {
		newest = 1<<16 | uint32(seq)
		w.sent[ssrc] = map[uint32][]byte{}
	}
	index := newest + uint32(int32(int16(seq-uint16(newest)))) // the rollover counter, and seq
	w.newest[ssrc] = max(newest, index)
	if before, ok := w.sent[ssrc][index]; ok {
		w.repeated++
		if !bytes.Equal(before, p) {
			w.t.Errorf("SSRC %d, index %#x: two different packets under one nonce", ssrc, index)
		}
	}
	w.sent[ssrc][index] = bytes.Clone(p)
}

// TestNoNonceTwice: a call with voices, a screen in layers that are switched,
// padding, packets lost by the hundred and sent again, sequence numbers that wrap:
// no two different packets leave under one key and nonce.
func TestNoNonceTwice(t *testing.T) {
	srv := startServer(t)
	a := join(t, srv, "call", "alpha", guestOptions{media: browser(t)})
	n, seen := newNarrow(t, srv), newNonceWatch(t)
	see := seen.see
	n.server.Store(&see)
	var w watcher
	b := join(t, srv, "call", "beta", guestOptions{media: browser(t), packet: w.packet, rewrite: n.rewrite})
	voice := a.publish(webrtc.MimeTypeOpus, "voice-stream")
	defer voice.end()
	shareScreen(t, a, [2]int{300_000, 1_500_000}) // its numbers are about to wrap
	until(t, "layer h", func() bool { return w.layer() == 'h' })
	n.dropIn.Store(9)
	until(t, "losses", func() bool { return n.dropped.Load() > 100 })
	n.dropIn.Store(0)
	n.bitrate.Store(600_000)
	until(t, "layer l", func() bool { return w.layer() == 'l' })
	n.bitrate.Store(0)
	until(t, "layer h again", func() bool { return w.layer() == 'h' })
	until(t, "the voice", func() bool {
		h := b.hears(classVoice, "alpha")
		return b.count(h) > 50
	})

	seen.mu.Lock()
	defer seen.mu.Unlock()
	wrapped := 0
	for ssrc, packets := range seen.sent {
		t.Logf("SSRC %d: %d packets", ssrc, len(packets))
		for index := range packets {
			if index>>16 > 1 {
				wrapped++
				break
			}
		}
	}
	if len(seen.sent) != 2 || seen.repeated < 20 || wrapped == 0 {
		t.Errorf("%d SSRCs, %d packets repeated, %d wraps: the test is too tame", len(seen.sent), seen.repeated, wrapped)
	}
}

// TestStockPeersUnderstand: pion's own SRTP decrypts what we encrypt, and we what
// it encrypts, with every profile, and whichever side is the DTLS client.
func TestStockPeersUnderstand(t *testing.T) {
	profiles := map[string][]dtls.SRTPProtectionProfile{
		"GCM 128": {dtls.SRTP_AEAD_AES_128_GCM},
		"GCM 256": {dtls.SRTP_AEAD_AES_256_GCM},
		"CM":      {dtls.SRTP_AES128_CM_HMAC_SHA1_80},
		"any":     nil,
	}
	for name, list := range profiles {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := startServer(t)
			o := guestOptions{media: browser(t), settings: func(e *webrtc.SettingEngine) {
				if list != nil {
					e.SetSRTPProtectionProfiles(list...)
				}
			}}
			a := join(t, srv, "call", "alpha", o)
			o.active, o.rewrite = true, func(s string) string { // pion answers so, and then does as it is told
				return strings.ReplaceAll(s, "a=setup:active", "a=setup:passive")
			}
			b := join(t, srv, "call", "beta", o)
			for from, to := range map[*guest]*guest{a: b, b: a} {
				defer from.publish(webrtc.MimeTypeOpus, "voice-stream").end()
				until(t, from.name+" to be heard", func() bool { return to.count(to.hears(classVoice, from.name)) > 20 })
			}
			if p := a.sess.media.out.Load().Profile(); name == "any" && p != 7 {
				t.Errorf("profile %d with a participant that has all, want AEAD_AES_128_GCM", p)
			}
		})
	}
}

// TestPionSendsNoRTP: not even when it is told to.
func TestPionSendsNoRTP(t *testing.T) {
	srv := startServer(t)
	a := join(t, srv, "call", "alpha", guestOptions{media: browser(t)})
	track, err := webrtc.NewTrackLocalStaticRTP(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus}, "x", "y")
	if err != nil {
		t.Fatal(err)
	}
	offered := a.offered()
	done := make(chan error, 1)
	a.sess.post(func() {
		_, err := a.sess.pc.AddTrack(track)
		a.sess.stale = true
		done <- err
	})
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	b := join(t, srv, "call", "beta", guestOptions{media: browser(t)})
	defer b.publish(webrtc.MimeTypeOpus, "voice-stream").end() // makes the server offer, that track too
	until(t, "an offer", func() bool { return a.offered() > offered })
	until(t, "pion to be refused", func() bool {
		err := track.WriteRTP(&rtp.Packet{Header: rtp.Header{Version: 2}, Payload: []byte{1}})
		if err == nil {
			time.Sleep(time.Millisecond)
		}
		return err != nil
	})
}
