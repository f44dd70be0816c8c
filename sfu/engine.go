package sfu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/pion/dtls/v2"
	"github.com/pion/ice/v2"
	"github.com/pion/interceptor"
	"github.com/pion/logging"
	"github.com/pion/rtp"
	"github.com/pion/sdp/v3"
	"github.com/pion/transport/v2"
	"github.com/pion/transport/v2/stdnet"
	"github.com/pion/webrtc/v3"
)

// Header extensions the SFU knows (rtcd protocol §4.4).
const (
	extAudioLevel = "urn:ietf:params:rtp-hdrext:ssrc-audio-level" // RFC 6464
	extMid        = "urn:ietf:params:rtp-hdrext:sdes:mid"
	extRID        = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id"
	extRepairRID  = "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id"
)

// dtlsFlight is how long a DTLS flight may go unanswered before it is sent
// again. Our ClientHello often comes before the participant's ICE agent is done
// and is lost; at the usual second (RFC 6347 §4.2.4.1) every join would wait for
// it. Browsers begin with 50 ms.
const dtlsFlight = 100 * time.Millisecond

// An engine is what every PeerConnection of the server is made of.
type engine struct {
	media    *webrtc.MediaEngine
	settings webrtc.SettingEngine
}

// newEngine is the only place that configures pion.
func newEngine(m *mux, t *tcpMux, log *slog.Logger) (*engine, error) {
	media := &webrtc.MediaEngine{}
	if err := registerCodecs(media); err != nil {
		return nil, err
	}
	for _, kind := range []webrtc.RTPCodecType{webrtc.RTPCodecTypeVideo, webrtc.RTPCodecTypeAudio} {
		media.RegisterFeedback(webrtc.RTCPFeedback{Type: webrtc.TypeRTCPFBTransportCC}, kind)
		if err := media.RegisterHeaderExtension(webrtc.RTPHeaderExtensionCapability{URI: sdp.TransportCCURI}, kind); err != nil {
			return nil, fmt.Errorf("register %s: %w", sdp.TransportCCURI, err)
		}
	}
	settings, err := settingEngine(m, t, log)
	if err != nil {
		return nil, err
	}
	return &engine{media, settings}, nil
}

// connection makes a PeerConnection whose streams are bounded by b and whose DTLS
// secrets go to keys. Its RTP is not pion's to send.
func (e *engine) connection(b *streams, keys io.Writer) (*webrtc.PeerConnection, error) {
	settings := e.settings
	settings.BufferFactory = b.buffer
	settings.SetDTLSKeyLogWriter(keys)
	chain := &interceptor.Registry{}
	chain.Add(&noRTP{})
	return webrtc.NewAPI(webrtc.WithMediaEngine(e.media), webrtc.WithInterceptorRegistry(chain), webrtc.WithSettingEngine(settings)).NewPeerConnection(webrtc.Configuration{})
}

// errNotPions is what pion is told that tries to send RTP.
var errNotPions = errors.New("RTP is encrypted by the SFU alone")

// noRTP is the interceptor that lets no RTP out of a PeerConnection. Nothing tries
// to; but pion has the same keys as we, and a second sender under one key and
// nonce would be the end of both (decision 0015).
type noRTP struct{ interceptor.NoOp }

// NewInterceptor implements interceptor.Factory.
func (*noRTP) NewInterceptor(string) (interceptor.Interceptor, error) { return &noRTP{}, nil }

// BindLocalStream implements interceptor.Interceptor.
func (*noRTP) BindLocalStream(*interceptor.StreamInfo, interceptor.RTPWriter) interceptor.RTPWriter {
	return interceptor.RTPWriterFunc(func(*rtp.Header, []byte, interceptor.Attributes) (int, error) {
		return 0, errNotPions
	})
}

func settingEngine(m *mux, t *tcpMux, log *slog.Logger) (webrtc.SettingEngine, error) {
	var e webrtc.SettingEngine
	e.LoggerFactory = pionLog{log}
	std, err := stdnet.NewNet()
	if err != nil {
		return e, fmt.Errorf("read network interfaces: %w", err)
	}
	e.SetNet(&advertisedNet{Net: std, mux: m, tcp: t})
	e.SetICEUDPMux(m)
	types := []webrtc.NetworkType{webrtc.NetworkTypeUDP4, webrtc.NetworkTypeUDP6}
	if len(t.endpoints) > 0 {
		e.SetICETCPMux(t)
		types = append(types, webrtc.NetworkTypeTCP4, webrtc.NetworkTypeTCP6)
	}
	e.SetNetworkTypes(types)
	e.DisableActiveTCP(true) // the SFU waits for TCP connections; it never dials where a client says
	e.SetIncludeLoopbackCandidate(true)
	e.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	e.SetReceiveMTU(maxDatagram)
	e.DetachDataChannels() // see Session.listen
	// The cheapest first.
	e.SetSRTPProtectionProfiles(dtls.SRTP_AEAD_AES_128_GCM, dtls.SRTP_AEAD_AES_256_GCM, dtls.SRTP_AES128_CM_HMAC_SHA1_80)
	e.SetSRTPReplayProtectionWindow(512) // a key frame arrives in bursts that networks reorder
	e.SetDTLSRetransmissionInterval(dtlsFlight)
	if err := e.SetAnsweringDTLSRole(webrtc.DTLSRoleClient); err != nil {
		return e, err
	}
	return e, nil
}

// videoFeedback is the RTCP that video takes; ConfigureTWCCSender adds
// transport-cc.
var videoFeedback = []webrtc.RTCPFeedback{{Type: "goog-remb"}, {Type: "ccm", Parameter: "fir"}, {Type: "nack"}, {Type: "nack", Parameter: "pli"}}

// registerCodecs registers what the SFU forwards and nothing else, with the
// payload types of its own offers.
func registerCodecs(m *webrtc.MediaEngine) error {
	for _, k := range knownCodecs {
		c := webrtc.RTPCodecParameters{PayloadType: webrtc.PayloadType(k.pt)}
		c.MimeType, c.ClockRate, c.RTCPFeedback = k.mime, 90000, videoFeedback
		kind := webrtc.RTPCodecTypeVideo
		if k.mime == webrtc.MimeTypeOpus {
			kind, c.ClockRate, c.Channels, c.SDPFmtpLine, c.RTCPFeedback = webrtc.RTPCodecTypeAudio, 48000, 2, "minptime=10;useinbandfec=1", nil
		}
		if err := m.RegisterCodec(c, kind); err != nil {
			return fmt.Errorf("register %s: %w", k.mime, err)
		}
	}
	if err := m.RegisterHeaderExtension(webrtc.RTPHeaderExtensionCapability{URI: extAudioLevel}, webrtc.RTPCodecTypeAudio); err != nil {
		return fmt.Errorf("register %s: %w", extAudioLevel, err)
	}
	for _, uri := range []string{extMid, extRID, extRepairRID} {
		if err := m.RegisterHeaderExtension(webrtc.RTPHeaderExtensionCapability{URI: uri}, webrtc.RTPCodecTypeVideo); err != nil {
			return fmt.Errorf("register %s: %w", uri, err)
		}
	}
	return nil
}

// advertisedNet shows the ICE agents one network interface that has exactly the
// advertised addresses: candidates are made of them and of nothing else, and no
// session asks the kernel for its interfaces.
type advertisedNet struct {
	transport.Net
	mux *mux
	tcp *tcpMux
}

// Interfaces implements transport.Net.
func (n *advertisedNet) Interfaces() ([]*transport.Interface, error) {
	i := transport.NewInterface(net.Interface{Index: 1, MTU: maxDatagram, Name: "sfu", Flags: net.FlagUp})
	var listed []netip.Addr
	for _, a := range n.tcp.advertised(n.tcp.bound.mapped) {
		if ip := a.Addr(); !slices.Contains(listed, ip) {
			listed = append(listed, ip)
			i.AddAddress(&net.IPNet{IP: ip.AsSlice(), Mask: net.CIDRMask(ip.BitLen(), ip.BitLen())})
		}
	}
	return []*transport.Interface{i}, nil
}

// pionLog gives pion's messages to slog at debug level: they speak of single
// peers, and strangers cause most of them.
type pionLog struct{ log *slog.Logger }

// NewLogger implements logging.LoggerFactory.
// Each session makes a dozen, so they hold nothing.
func (l pionLog) NewLogger(scope string) logging.LeveledLogger {
	return pionScope{l.log, scope}
}

type pionScope struct {
	log   *slog.Logger
	scope string
}

func (s pionScope) write(format string, args ...any) {
	if s.log.Enabled(context.Background(), slog.LevelDebug) {
		s.log.Debug("webrtc library", "scope", s.scope, "text", fmt.Sprintf(format, args...))
	}
}

func (pionScope) Trace(string)                     {}
func (pionScope) Tracef(string, ...any)            {}
func (pionScope) Debug(string)                     {}
func (pionScope) Debugf(string, ...any)            {}
func (pionScope) Info(string)                      {}
func (pionScope) Infof(string, ...any)             {}
func (s pionScope) Warn(msg string)                { s.write("%s", msg) }
func (s pionScope) Warnf(format string, a ...any)  { s.write(format, a...) }
func (s pionScope) Error(msg string)               { s.write("%s", msg) }
func (s pionScope) Errorf(format string, a ...any) { s.write(format, a...) }
