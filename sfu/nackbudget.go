package sfu

import (
	"time"

	"github.com/pion/interceptor"
	"github.com/pion/rtcp"
	"golang.org/x/time/rate"
)

// A NACK of 1,200 bytes can name five thousand packets, each of which would be
// sent again. One participant may have so many a second, and so many at once:
// more than a connection needs that loses a tenth of a screen share.
const (
	resendsPerSecond = 500
	resendsAtOnce    = 1000
)

// nackBudgets makes the interceptor that keeps each connection's NACKs within
// that budget. It must be registered before the one that answers them.
type nackBudgets struct{ drops func(reason string) }

// NewInterceptor implements interceptor.Factory: one for each connection.
func (f nackBudgets) NewInterceptor(string) (interceptor.Interceptor, error) {
	return &nackBudget{drops: f.drops, left: rate.NewLimiter(resendsPerSecond, resendsAtOnce)}, nil
}

type nackBudget struct {
	interceptor.NoOp
	drops func(reason string)
	left  *rate.Limiter
}

// BindRTCPReader implements interceptor.Interceptor.
func (b *nackBudget) BindRTCPReader(r interceptor.RTCPReader) interceptor.RTCPReader {
	return interceptor.RTCPReaderFunc(func(p []byte, a interceptor.Attributes) (int, interceptor.Attributes, error) {
		for {
			n, attr, err := r.Read(p, a)
			if err != nil {
				return n, attr, err
			}
			if attr == nil {
				attr = make(interceptor.Attributes)
			}
			packets, err := attr.GetRTCPPackets(p[:n])
			if err != nil {
				return n, attr, nil // not for us to judge
			}
			if b.within(packets) {
				return n, attr, nil
			}
			b.drops("nack_budget")
		}
	})
}

// within takes the packets that are asked for from the budget.
func (b *nackBudget) within(packets []rtcp.Packet) bool {
	wanted := 0
	for _, p := range packets {
		if nack, ok := p.(*rtcp.TransportLayerNack); ok {
			for _, pair := range nack.Nacks {
				wanted += len(pair.PacketList())
			}
		}
	}
	return wanted == 0 || b.left.AllowN(time.Now(), wanted)
}
