package rtcd

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"sallyport/sfu/wire"
)

// metrics of the front door. The names that begin with rtcd_ are the ones
// existing dashboards query.
type metrics struct {
	connections *prometheus.GaugeVec   // by clientID
	messages    *prometheus.CounterVec // by clientID, type, direction
	dropped     prometheus.Counter
	refused     prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		connections: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "rtcd_ws_connections_total",
			Help: "Open WebSocket connections.",
		}, []string{"clientID"}),
		messages: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rtcd_ws_messages_total",
			Help: "WebSocket messages: in = every decoded one, out = rtc and vad.",
		}, []string{"clientID", "type", "direction"}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sallyport_rtcd_dropped_messages_total",
			Help: "Messages to a client that had no living connection, or whose connection died before they were written.",
		}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sallyport_rtcd_refused_credentials_total",
			Help: "Requests refused because of a missing or wrong credential.",
		}),
	}
	if reg == nil {
		return m, nil
	}
	err := errors.Join(reg.Register(m.connections), reg.Register(m.messages), reg.Register(m.dropped), reg.Register(m.refused))
	if err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return m, nil
}

// received counts a decoded message. Types a client made up share one label.
func (m *metrics) received(client, typ string) {
	switch typ {
	case wire.TypeHello, wire.TypeJoin, wire.TypeLeave, wire.TypeReconnect, wire.TypeRTC, wire.TypeVAD, wire.TypeClose:
	default:
		typ = "unknown"
	}
	m.messages.WithLabelValues(client, typ, "in").Inc()
}

func (m *metrics) sent(client, typ string) {
	if typ == wire.TypeRTC || typ == wire.TypeVAD {
		m.messages.WithLabelValues(client, typ, "out").Inc()
	}
}

// forget drops what is counted for a client that has unregistered: those who
// register under ever new names would otherwise fill the memory.
func (m *metrics) forget(client string) {
	label := prometheus.Labels{"clientID": client}
	m.connections.DeletePartialMatch(label)
	m.messages.DeletePartialMatch(label)
}
