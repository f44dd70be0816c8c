package sfu

import (
	"fmt"
	"net/netip"

	"github.com/pion/webrtc/v3"

	"sallyport/sfu/internal/srtp"
)

// This file is where a media begins and ends: its keys, and the path to the
// participant, both of which pion finds.

// watch makes m take part in what the PeerConnection does.
func (m *media) watch(pc *webrtc.PeerConnection) {
	m.pc = pc
	dtls := pc.SCTP().Transport()
	dtls.OnStateChange(func(st webrtc.DTLSTransportState) {
		if st != webrtc.DTLSTransportStateConnected {
			return
		}
		if err := m.begin(); err != nil {
			m.session.fail("no media keys", "dtls", err)
		}
	})
	dtls.ICETransport().OnSelectedCandidatePairChange(m.selected)
}

// begin takes the keys. pion has verified the participant's certificate, and has
// not yet touched a packet.
func (m *media) begin() error {
	keys, err := m.secrets.Keys(func(p uint16) (int, int) { return srtp.Profile(p).KeyLength(), srtp.Profile(p).SaltLength() })
	m.secrets.Wipe()
	if err != nil {
		return fmt.Errorf("learn SRTP keys: %w", err)
	}
	defer keys.Wipe()
	client, err := srtp.NewKeys(srtp.Profile(keys.Profile), keys.ClientKey, keys.ClientSalt)
	if err != nil {
		return err
	}
	server, err := srtp.NewKeys(srtp.Profile(keys.Profile), keys.ServerKey, keys.ServerSalt)
	if err != nil {
		return err
	}
	if !keys.Client {
		client, server = server, client
	}
	m.mu.Lock()
	m.in = server
	m.mu.Unlock()
	m.out.Store(client)
	m.session.server.reporter.add(m)
	m.session.log.Debug("media keys are there", "profile", keys.Profile)
	return nil
}

// close ends the media: nothing is sent or taken any longer.
func (m *media) close() {
	m.session.server.reporter.remove(m)
	m.secrets.Wipe()
	m.path.close()
	m.pair.Store(nil)
	m.way.Store(nil)
	out := m.out.Swap(nil)
	m.mu.Lock()
	in := m.in
	m.in, m.sources = nil, nil
	m.mu.Unlock()
	for _, k := range []*srtp.Keys{in, out} {
		if k != nil {
			k.Wipe()
		}
	}
}

// listen makes the media sockets show m what belongs to the session.
func (m *media) listen(ufrag string) {
	if old := m.ufrag.Swap(&ufrag); old != nil && *old != "" && *old != ufrag {
		m.session.server.mux.tap(*old, nil)
	}
	if ufrag != "" {
		m.session.server.mux.tap(ufrag, m)
	}
}

// A pairOf is the path that ICE has chosen.
type pairOf struct {
	local, remote netip.AddrPort
	tcp           bool
}

// selected is called when ICE has chosen a path, or another.
func (m *media) selected(pair *webrtc.ICECandidatePair) {
	if pair == nil {
		return
	}
	local, okLocal := candidateAddress(pair.Local)
	remote, okRemote := candidateAddress(pair.Remote)
	if !okLocal || !okRemote {
		return
	}
	m.pair.Store(&pairOf{local, remote, pair.Local.Protocol == webrtc.ICEProtocolTCP})
	m.way.Store(m.find())
}

// find returns the way of the chosen path, nil if there is none. Should the sockets
// not know it yet, it is looked for again with the next reports.
func (m *media) find() *way {
	pair, ufrag := m.pair.Load(), m.ufrag.Load()
	if pair == nil || ufrag == nil {
		return nil
	}
	w := m.session.server.mux.way(*ufrag, pair.local, pair.remote, pair.tcp)
	if w == nil {
		m.session.log.Debug("selected path leads nowhere", "remote", pair.remote)
	}
	return w
}

func candidateAddress(c *webrtc.ICECandidate) (netip.AddrPort, bool) {
	if c == nil {
		return netip.AddrPort{}, false
	}
	ip, err := netip.ParseAddr(c.Address)
	return netip.AddrPortFrom(ip.Unmap(), c.Port), err == nil
}

// handshake implements mediaTap.
func (m *media) handshake(p []byte, outgoing bool) { m.secrets.Look(p, outgoing) }
