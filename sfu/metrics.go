package sfu

import (
	"github.com/prometheus/client_golang/prometheus"
)

// metrics has the series that dashboards made for rtcd query (rtcd protocol §7:
// names, types, labels and buckets are part of the interface) and our own.
type metrics struct {
	sessions   *prometheus.GaugeVec     // groupID
	states     *prometheus.CounterVec   // type
	errors     *prometheus.CounterVec   // groupID, type
	tracks     *prometheus.GaugeVec     // groupID, direction, type
	writes     *prometheus.HistogramVec // groupID, type
	connection *prometheus.HistogramVec // groupID
	dcOpen     *prometheus.HistogramVec
	lockGrab   *prometheus.HistogramVec
	lockHeld   *prometheus.HistogramVec
	clientLoss *prometheus.HistogramVec
	clientRTT  *prometheus.HistogramVec
	clientJit  *prometheus.HistogramVec
	drops      *prometheus.CounterVec // reason
	lookups    *prometheus.CounterVec // result

	readvertised prometheus.Counter
	kinds        kindCounters
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	latency := []float64{.001, .005, .0075, .01, .025, .05, .075, .1, .25, .3, .4, .5, .75, 1}
	share := []float64{.001, .005, .0075, .01, .025, .05, .075, .1, .25, .5, .75, 1}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "rtcd_rtc_" + name, Help: help, Buckets: buckets}, append([]string{"groupID"}, labels...))
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "rtcd_rtc_" + name, Help: help}, labels)
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	m := &metrics{
		sessions:   gauge("sessions_total", "Live sessions.", "groupID"),
		states:     counter("rtcd_rtc_conn_states_total", "Changes of PeerConnection state.", "type"),
		errors:     counter("rtcd_rtc_errors_total", "Errors by kind.", "groupID", "type"),
		tracks:     gauge("rtp_tracks_total", "Active RTP tracks.", "groupID", "direction", "type"),
		writes:     histogram("rtp_tracks_writes_time", "Seconds to forward one packet to all receivers.", latency, "type"),
		connection: histogram("connection_time", "Seconds from join to connected.", nil),
		dcOpen:     histogram("dc_open_time", "Seconds from the first answer to an open data channel.", nil),
		lockGrab:   histogram("signaling_lock_grab_time", "Seconds the server waited for the signaling lock.", nil),
		lockHeld:   histogram("signaling_lock_locked_time", "Seconds the signaling lock was held.", nil),
		clientLoss: histogram("client_loss_rate", "Share of packets lost, as clients report it.", share),
		clientRTT:  histogram("client_rtt", "Round-trip time in seconds, as clients report it.", latency),
		clientJit:  histogram("client_jitter", "Jitter in seconds, as clients report it.", latency),
		drops:      counter("sallyport_sfu_dropped_total", "Datagrams and connections dropped by the media sockets.", "reason"),
		lookups:    counter("sallyport_sfu_address_lookups_total", "Rounds of asking for the advertised addresses, by result.", "result"),

		readvertised: prometheus.NewCounter(prometheus.CounterOpts{Name: "sallyport_sfu_address_changes_total", Help: "Changes of the advertised addresses while running."}),
	}
	datagrams := counter("sallyport_demux_datagrams_total", "Datagrams on the shared UDP port by what they are.", "kind")
	for _, name := range kindNames {
		m.kinds = append(m.kinds, datagrams.WithLabelValues(name))
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.sessions, m.states, m.errors, m.tracks, m.writes, m.connection, m.dcOpen, m.lockGrab, m.lockHeld, m.clientLoss, m.clientRTT, m.clientJit, m.drops, m.lookups, m.readvertised, datagrams} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
