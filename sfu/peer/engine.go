package peer

import (
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/pion/ice/v2"
	"github.com/pion/interceptor"
	"github.com/pion/logging"
	"github.com/pion/webrtc/v3"
)

// How long ICE waits before it calls a connection disconnected and failed.
// More patient than pion's defaults: a load test must not fail peers because
// the machine was busy for a moment.
const (
	iceDisconnected = 10 * time.Second
	iceFailed       = 30 * time.Second
	iceKeepAlive    = 2 * time.Second
)

// The header extensions of a browser's offer.
const (
	extAudioLevel  = "urn:ietf:params:rtp-hdrext:ssrc-audio-level"
	extMID         = "urn:ietf:params:rtp-hdrext:sdes:mid"
	extRID         = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id"
	extRepairedRID = "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id"
	extTransportCC = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
)

// newConnection returns a PeerConnection of a participant like c, whose Close
// is the caller's.
func newConnection(c *Config) (*webrtc.PeerConnection, error) {
	servers, err := c.Path.servers(c.ICEServers)
	if err != nil {
		return nil, err
	}
	media := &webrtc.MediaEngine{}
	if err := registerMedia(media, c); err != nil {
		return nil, fmt.Errorf("register codecs: %w", err)
	}
	chain := &interceptor.Registry{}
	if c.Feedback {
		if err := registerFeedback(media, chain); err != nil {
			return nil, fmt.Errorf("register feedback: %w", err)
		}
	}
	api := webrtc.NewAPI(webrtc.WithMediaEngine(media), webrtc.WithSettingEngine(settings(c)), webrtc.WithInterceptorRegistry(chain))
	configuration := webrtc.Configuration{ICEServers: forPion(servers)}
	if c.Path.relayed() {
		configuration.ICETransportPolicy = webrtc.ICETransportPolicyRelay
	}
	pc, err := api.NewPeerConnection(configuration)
	if err != nil {
		return nil, fmt.Errorf("create peer connection: %w", err)
	}
	return pc, nil
}

func registerMedia(m *webrtc.MediaEngine, c *Config) error {
	feedback := []webrtc.RTCPFeedback{{Type: "goog-remb"}, {Type: "transport-cc"}, {Type: "ccm", Parameter: "fir"}, {Type: "nack"}, {Type: "nack", Parameter: "pli"}}
	opus := webrtc.RTPCodecParameters{PayloadType: 111, RTPCodecCapability: webrtc.RTPCodecCapability{
		MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2,
		SDPFmtpLine: "minptime=10;useinbandfec=1", RTCPFeedback: feedback[1:2],
	}}
	if err := m.RegisterCodec(opus, webrtc.RTPCodecTypeAudio); err != nil {
		return err
	}
	video := []webrtc.RTPCodecParameters{{PayloadType: 96, RTPCodecCapability: webrtc.RTPCodecCapability{
		MimeType: webrtc.MimeTypeVP8, ClockRate: 90000, RTCPFeedback: feedback}}}
	if c.AV1 {
		video = append(video, webrtc.RTPCodecParameters{PayloadType: 45, RTPCodecCapability: webrtc.RTPCodecCapability{
			MimeType: webrtc.MimeTypeAV1, ClockRate: 90000, RTCPFeedback: feedback}})
	}
	for _, codec := range video {
		if err := m.RegisterCodec(codec, webrtc.RTPCodecTypeVideo); err != nil {
			return err
		}
	}
	for _, x := range []struct {
		uri  string
		kind webrtc.RTPCodecType
	}{
		{extAudioLevel, webrtc.RTPCodecTypeAudio}, {extTransportCC, webrtc.RTPCodecTypeAudio},
		{extMID, webrtc.RTPCodecTypeVideo}, {extRID, webrtc.RTPCodecTypeVideo},
		{extRepairedRID, webrtc.RTPCodecTypeVideo}, {extTransportCC, webrtc.RTPCodecTypeVideo},
	} {
		if err := m.RegisterHeaderExtension(webrtc.RTPHeaderExtensionCapability{URI: x.uri}, x.kind); err != nil {
			return err
		}
	}
	return nil
}

func registerFeedback(m *webrtc.MediaEngine, chain *interceptor.Registry) error {
	if err := webrtc.ConfigureNack(m, chain); err != nil {
		return err
	}
	if err := webrtc.ConfigureRTCPReports(chain); err != nil {
		return err
	}
	return webrtc.ConfigureTWCCSender(m, chain)
}

func settings(c *Config) webrtc.SettingEngine {
	var e webrtc.SettingEngine
	e.LoggerFactory = pionLogs{c.Logger}
	e.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	e.SetIncludeLoopbackCandidate(true)
	e.SetICETimeouts(iceDisconnected, iceFailed, iceKeepAlive)
	e.SetRelayAcceptanceMinWait(0)
	if c.LocalIP.IsValid() {
		local := net.IP(c.LocalIP.Unmap().AsSlice())
		e.SetIPFilter(local.Equal)
	}
	udp, tcp := webrtc.NetworkTypeUDP4, webrtc.NetworkTypeTCP4
	if c.IPv6 {
		udp, tcp = webrtc.NetworkTypeUDP6, webrtc.NetworkTypeTCP6
	}
	switch c.Path {
	case Auto:
		e.SetNetworkTypes([]webrtc.NetworkType{udp, tcp})
	case TCP:
		e.SetNetworkTypes([]webrtc.NetworkType{tcp})
	default:
		// Even with a relay-only policy pion dials every TCP candidate it gets.
		e.DisableActiveTCP(true)
		e.SetNetworkTypes([]webrtc.NetworkType{udp})
	}
	c.SRTP.offer(&e)
	if c.tally != nil {
		e.SetNet(c.Bulk.network(c.tally))
	}
	if c.DialTURN != nil && (c.Path == Auto || c.Path == TURNTCP || c.Path == TURNTLS) {
		// pion does no TLS of its own over a proxy's connection.
		d := dialer(c.DialTURN)
		if c.tally != nil {
			d = d.counted(c.tally)
		}
		e.SetICEProxyDialer(d)
	}
	return e
}

// pionLogs turns the logs of pion into ours: its warnings into debug records,
// since most of them are about connections that were closed.
type pionLogs struct{ *slog.Logger }

func (l pionLogs) NewLogger(scope string) logging.LeveledLogger {
	return pionLog{l.With("scope", scope)}
}

type pionLog struct{ log *slog.Logger }

func (pionLog) Trace(string)          {}
func (pionLog) Tracef(string, ...any) {}
func (pionLog) Debug(string)          {}
func (pionLog) Debugf(string, ...any) {}
func (pionLog) Info(string)           {}
func (pionLog) Infof(string, ...any)  {}

func (l pionLog) Warn(text string)          { l.log.Debug("pion warning", "err", text) }
func (l pionLog) Warnf(f string, a ...any)  { l.Warn(fmt.Sprintf(f, a...)) }
func (l pionLog) Error(text string)         { l.log.Warn("pion error", "err", text) }
func (l pionLog) Errorf(f string, a ...any) { l.Error(fmt.Sprintf(f, a...)) }
