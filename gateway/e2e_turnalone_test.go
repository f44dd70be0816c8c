package gateway_test

import (
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/pion/stun"

	"sallyport/gateway"
)

// TestTURNAlone: without an SFU, too, an answer leaves from that of several addresses
// which was asked. It runs in a network namespace that has them.
func TestTURNAlone(t *testing.T) {
	needPrograms(t, "ip")
	if os.Getenv(inNamespace) == "" {
		rerunInNamespace(t)
		return
	}
	must(t, ip("link set lo up", "addr add 10.0.0.1/32 dev lo", "addr add 10.0.0.2/32 dev lo", "-6 addr add 2001:db8::1/128 dev lo nodad"))
	x, g := startHere(t, func(c *gateway.Config) {
		c.SFU.Mode = gateway.ModeOff
		c.TURN.RelayTo = []string{"192.0.2.1:8443"}
		c.Listen.UDP = ":0"
	})
	_, port, err := net.SplitHostPort(g.Addrs().UDP)
	must(t, err)
	for _, asked := range []string{"10.0.0.1", "10.0.0.2", "127.0.0.1", "2001:db8::1", "::1"} {
		for range 8 { // of the sockets on the address, one is chosen by the port
			answersFrom(t, net.JoinHostPort(asked, port))
		}
		x.UDP = net.JoinHostPort(asked, port)
		must(t, x.probe(within(t), "udp", ""))
	}
}

// answersFrom wants a Binding answered from the address it was sent to.
func answersFrom(t *testing.T, asked string) {
	t.Helper()
	to := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(asked))
	from := &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}
	if to.IP.To4() == nil {
		from.IP = net.IPv6loopback
	}
	conn, err := net.DialUDP("udp", from, to) // hears that address alone
	must(t, err)
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	request, err := stun.Build(stun.TransactionID, stun.BindingRequest)
	must(t, err)
	_, err = conn.Write(request.Raw)
	must(t, err)
	buf := make([]byte, 1500)
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatalf("%s: %v", asked, err)
	}
	answer := &stun.Message{Raw: buf[:n]}
	if err := answer.Decode(); err != nil || answer.Type != stun.BindingSuccess {
		t.Errorf("%s: %v, %v", asked, answer, err)
	}
}
