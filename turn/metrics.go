package turn

import (
	"github.com/prometheus/client_golang/prometheus"
)

// A transport is how a client reaches us.
type transport uint8

const (
	overUDP transport = iota
	overTCP
	overTLS
	transports // how many there are
)

func (t transport) String() string { return [...]string{"udp", "tcp", "tls"}[t] }

// metrics are the server's counters. Those of the media path are resolved once.
type metrics struct {
	allocations [transports]prometheus.Gauge
	flows       [transports]*flow
	connections [transports]prometheus.Gauge
	auth        *prometheus.CounterVec // result, method
	denied      *prometheus.CounterVec // method
	deniedSend  prometheus.Counter
	unanswered  prometheus.Counter
	shared      prometheus.Counter
	handoff     prometheus.Histogram
	drops       drops
}

// drops counts what was thrown away, by reason.
type drops struct {
	malformed  prometheus.Counter // neither a STUN message nor a ChannelData frame we know
	oversize   prometheus.Counter // longer than maxDatagram
	stranger   prometheus.Counter // media or indication without allocation
	permission prometheus.Counter // no permission or channel for the peer
	challenge  prometheus.Counter // answers to UDP strangers above the rate
	amplified  prometheus.Counter // and those too long for what was asked
	lobby      prometheus.Counter // connections refused: too many without allocation
	shard      prometheus.Counter // queue towards a shard full
	stream     prometheus.Counter // write queue of a connection full
	late       prometheus.Counter // waited too long there
	landing    prometheus.Counter // queue towards the SFU full
	relay      prometheus.Counter // queue towards a client full
	bitrate    prometheus.Counter // above allocation_bitrate
	socket     prometheus.Counter // kernel socket failed, or a stranger wrote to it
}

// flow counts the relayed payload of one transport; up is client to peer.
type flow struct {
	upBytes, upPackets, downBytes, downPackets prometheus.Counter
}

func (f *flow) up(bytes, packets int) {
	f.upBytes.Add(float64(bytes))
	f.upPackets.Add(float64(packets))
}

func (f *flow) down(n int) {
	f.downBytes.Add(float64(n))
	f.downPackets.Inc()
}

// newMetrics makes the counters and registers them with reg unless it is nil.
// mostAddresses is what a watch says.
func newMetrics(reg prometheus.Registerer, mostAddresses func() float64) (*metrics, error) {
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "sallyport_turn_" + name, Help: help}, labels)
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sallyport_turn_" + name, Help: help}, labels)
	}
	var (
		allocations = gauge("allocations", "Living TURN allocations.", "transport")
		connections = gauge("connections", "Open TURN connections, with or without allocation.", "transport")
		bytes       = counter("bytes_total", "Relayed payload in bytes; up is client to peer.", "direction", "transport")
		packets     = counter("packets_total", "Relayed packets; up is client to peer.", "direction", "transport")
		dropped     = counter("drops_total", "Packets and connections thrown away.", "reason")
		unanswered  = counter("unanswered_bytes_total", "Payload relayed to the SFU that does not answer the allocation: no session.")
		shared      = counter("shared_credentials_total", "Credentials used from many addresses.")
		most        = prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "sallyport_turn_credential_addresses_max", Help: "Addresses from which one credential was used within an hour, the highest number.",
		}, mostAddresses)
	)
	m := &metrics{
		auth:   counter("auth_total", "Authenticated or refused requests.", "result", "method"),
		denied: counter("denied_peers_total", "Peers a client may not reach.", "method"),
	}
	m.handoff = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "sallyport_turn_handoff_seconds", Help: "Time until the SFU has taken what a client sends it; one batch in 64 is measured.",
		Buckets: []float64{10e-6, 30e-6, 100e-6, 300e-6, 1e-3, 3e-3, 10e-3, 30e-3, .1, .3},
	})
	m.unanswered, m.shared = unanswered.WithLabelValues(), shared.WithLabelValues()
	m.deniedSend = m.denied.WithLabelValues("send")
	for t := range transports {
		m.allocations[t] = allocations.WithLabelValues(t.String())
		m.connections[t] = connections.WithLabelValues(t.String())
		m.flows[t] = &flow{
			upBytes: bytes.WithLabelValues("up", t.String()), upPackets: packets.WithLabelValues("up", t.String()),
			downBytes: bytes.WithLabelValues("down", t.String()), downPackets: packets.WithLabelValues("down", t.String()),
		}
	}
	m.drops.resolve(dropped)
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{allocations, connections, bytes, packets, dropped, m.auth, m.denied, unanswered, shared, most, m.handoff} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// resolve looks the counters up.
func (d *drops) resolve(dropped *prometheus.CounterVec) {
	for reason, c := range map[string]*prometheus.Counter{
		"malformed": &d.malformed, "oversize": &d.oversize, "stranger": &d.stranger, "permission": &d.permission,
		"challenge": &d.challenge, "amplification": &d.amplified, "lobby": &d.lobby, "shard_queue": &d.shard, "stream_queue": &d.stream, "stream_late": &d.late,
		"sfu_queue": &d.landing, "relay_queue": &d.relay, "bitrate": &d.bitrate, "socket": &d.socket,
	} {
		*c = dropped.WithLabelValues(reason)
	}
}
