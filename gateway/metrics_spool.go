package gateway

import "github.com/prometheus/client_golang/prometheus"

// The labels of sallyport_spool_transfers_total and sallyport_spool_refused_total.
const (
	spoolUp     = "upload"
	spoolDown   = "download"
	spoolFull   = "full"
	spoolBroken = "error"
)

// spoolMetrics are those of what waits on disk.
type spoolMetrics struct {
	bytes     prometheus.Gauge
	transfers *prometheus.CounterVec // direction
	refused   *prometheus.CounterVec // reason
}

func newSpoolMetrics(reg prometheus.Registerer) spoolMetrics {
	m := spoolMetrics{
		bytes:     gauge("sallyport_spool_bytes", "Bytes of slow transfers that are kept on disk."),
		transfers: counters("sallyport_spool_transfers_total", "Transfers that were kept on disk, in whole or in part.", "direction"),
		refused:   counters("sallyport_spool_refused_total", "Transfers that streamed because there was no room or the disk failed.", "reason"),
	}
	for _, direction := range []string{spoolUp, spoolDown} {
		m.transfers.WithLabelValues(direction)
	}
	for _, reason := range []string{spoolFull, spoolBroken} {
		m.refused.WithLabelValues(reason)
	}
	reg.MustRegister(m.bytes, m.transfers, m.refused)
	return m
}
