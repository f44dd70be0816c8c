package turn

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/pion/stun"
)

// A channel means what pion says it does, over every transport: refused changes
// change nothing, and what is sent right behind a request stays in order.
func TestChannelsOverTheWire(t *testing.T) {
	eachTransport(t, nil, func(r *rig, transport string) {
		given := make(chan string, 1000)
		l := r.hairpin.landings[0]
		go l.Receive(func(packets [][]byte, from netip.AddrPort) {
			for _, p := range packets {
				given <- string(p)
				_, _ = l.WriteToUDPAddrPort(p, from)
			}
		})
		eventually(r.T, testWait, "the SFU receives", func() bool {
			l.mu.RLock()
			defer l.mu.RUnlock()
			return l.take != nil
		})
		tk := r.talk(transport, "alice")
		tk.allocate()
		request := tk.build(stun.MethodChannelBind, attribute(stun.AttrChannelNumber, []byte{0x40, 0, 0, 0}), xorAddress{stun.AttrXORPeerAddress, testNamed})
		tk.send(request.Raw)
		const eager = 100      // what a socket of the client holds
		for i := range eager { // before the answer
			tk.send(channelFrame(0x4000, fmt.Appendf(nil, "%d", i)))
		}
		next := 0
		for next < eager {
			select {
			case p := <-given:
				var i int
				if _, err := fmt.Sscan(p, &i); err != nil || i < next || transport != "udp" && i != next {
					r.Fatalf("the SFU got %q, want %d", p, next)
				}
				next = i + 1
			case <-time.After(testWait):
				r.Fatalf("the SFU got %d", next)
			}
		}
		for next, answered := 0, false; next < eager || !answered; {
			b := tk.receive(testWait)
			switch m := (&stun.Message{Raw: b}); {
			case b == nil:
				r.Fatalf("the client got %d, answer %v", next, answered)
			case !isChannelData(b):
				answered = m.Decode() == nil && m.TransactionID == request.TransactionID && codeOf(m) == 0
			default:
				var i int
				if _, err := fmt.Sscan(string(b[channelHeader:]), &i); err != nil || i < next {
					r.Fatalf("the client got %q, want %d", b, next)
				}
				next = i + 1
			}
		}

		tk.want(tk.bind(0x4000, testAliased), stun.CodeBadRequest)
		tk.want(tk.bind(0x4001, testNamed), stun.CodeBadRequest)
		tk.send(channelFrame(0x4001, []byte("nowhere")))
		frame := channelFrame(0x4000, []byte("still!!!"))
		tk.send(frame)
		if p := <-given; p != "still!!!" {
			r.Errorf("the SFU got %q", p)
		}
		if got := tk.receive(testWait); !bytes.Equal(got, frame) {
			r.Errorf("the client got %q, want %q", got, frame)
		}
		tk.want(tk.do(stun.MethodRefresh, lifetimeAttribute(0)), 0)
		tk.send(frame)
		eventually(r.T, testWait, "media without allocation is counted", func() bool { return r.total("drops_total", "stranger") == 1 })
		if len(given) > 0 {
			r.Errorf("the SFU got %q after the end", <-given)
		}
	})
}
