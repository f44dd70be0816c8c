package sfu

import (
	"strings"
	"sync"
)

// iceKeys has the ICE credentials of the sessions, by local ufrag. A nil
// *iceKeys has none.
type iceKeys struct {
	mu    sync.RWMutex // guards pairs
	pairs map[string]iceKeyPair
}

// An iceKeyPair is what two ICE agents know of each other (RFC 8445 §5.3).
type iceKeyPair struct{ local, remote iceCredentials }

type iceCredentials struct{ ufrag, password string }

func newICEKeys() *iceKeys { return &iceKeys{pairs: map[string]iceKeyPair{}} }

func (k *iceKeys) put(p iceKeyPair) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.pairs[p.local.ufrag] = p
}

func (k *iceKeys) remove(ufrag string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.pairs, ufrag)
}

func (k *iceKeys) get(ufrag string) (iceKeyPair, bool) {
	if k == nil {
		return iceKeyPair{}, false
	}
	k.mu.RLock()
	defer k.mu.RUnlock()
	p, ok := k.pairs[ufrag]
	return p, ok
}

// sdpCredentials returns the ICE credentials of a description that the
// PeerConnection has accepted: the first it names, because everything is
// bundled.
func sdpCredentials(sdp string) (iceCredentials, bool) {
	var c iceCredentials
	for line := range strings.Lines(sdp) {
		line = strings.TrimRight(line, "\r\n")
		if v, ok := strings.CutPrefix(line, "a=ice-ufrag:"); ok && c.ufrag == "" {
			c.ufrag = v
		} else if v, ok := strings.CutPrefix(line, "a=ice-pwd:"); ok && c.password == "" {
			c.password = v
		}
	}
	return c, c.ufrag != "" && c.password != ""
}

// learnKeys tells the media sockets the credentials of both sides after each
// exchange: an ICE restart changes them.
func (s *Session) learnKeys(local, remote string) {
	l, ok := sdpCredentials(local)
	if !ok {
		return
	}
	r, ok := sdpCredentials(remote)
	if !ok {
		return
	}
	if s.ufrag != l.ufrag {
		s.forgetKeys()
	}
	s.ufrag = l.ufrag
	s.media.listen(s.ufrag)
	s.server.keys.put(iceKeyPair{local: l, remote: r})
}

func (s *Session) forgetKeys() {
	if s.ufrag != "" {
		s.server.keys.remove(s.ufrag)
		s.media.listen("")
	}
}
