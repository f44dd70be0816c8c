package turn

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/pion/stun"
	"github.com/pion/turn/v2"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

const (
	testSecret = "a secret shared with the plugin"
	testWait   = 30 * time.Second // for anything that ought to happen at once
	blindWait  = 5 * time.Second  // for what may never happen
)

var (
	testRelayIP  = netip.MustParseAddr("203.0.113.5")
	testRelayV6  = netip.MustParseAddr("2001:db8::5")
	testRelayIPs = []netip.Addr{testRelayIP}
	testNamed    = netip.MustParseAddrPort("203.0.113.7:8443") // the SFU as clients know it
	testAliased  = netip.MustParseAddrPort("198.51.100.7:8443")
	testLocal    = netip.MustParseAddrPort("127.0.0.1:8443") // and as it is bound
	transportsT  = []string{"udp", "tcp", "tls"}
)

// A rig is a server on loopback with an SFU behind it that echoes.
type rig struct {
	*testing.T
	server  *Server
	hairpin *Hairpin
	metrics *prometheus.Registry
	addr    map[string]string // by transport
	stop    func()            // ends Run and waits for it
}

// newRig starts a server; change may adapt its configuration, tune the server.
func newRig(t *testing.T, change func(*Config), tune ...func(*Server)) *rig {
	t.Helper()
	cfg := Config{Enabled: true, Realm: "example.com", RelayTo: []string{"sfu"}, MaxAllocations: 1000, UserAllocations: 24}
	if change != nil {
		change(&cfg)
	}
	r := &rig{T: t, metrics: prometheus.NewRegistry(), addr: make(map[string]string)}
	r.hairpin = NewHairpin(testRelayIPs, []Alias{{testNamed, testLocal}, {testAliased, testLocal}, {testLocal, testLocal}})
	var err error
	r.server, err = New(cfg, r.hairpin, Options{Metrics: r.metrics, Secrets: [][]byte{[]byte(testSecret)}})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range tune {
		f(r.server)
	}
	plain, secure := listen(t), listen(t)
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.addr["udp"], r.addr["tcp"], r.addr["tls"] = udp.LocalAddr().String(), plain.Addr().String(), secure.Addr().String()

	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- r.server.Run(ctx, []net.Listener{plainListener{plain}, &tlsListener{secure, testCertificate(t)}}, []net.PacketConn{udp})
	}()
	sfu := make(chan struct{})
	go func() {
		defer close(sfu)
		echo(r.hairpin.Conns()[0])
	}()
	stopped := false
	r.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(testWait):
			buf := make([]byte, 1<<20)
			t.Fatalf("Run does not end:\n%s", buf[:runtime.Stack(buf, true)])
		}
		_ = r.hairpin.Close()
		<-sfu
	}
	t.Cleanup(r.stop)
	return r
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// echo answers STUN Binding requests and returns everything else to where it
// came from.
func echo(conn net.PacketConn) {
	buf := make([]byte, 4096)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		m := stun.Message{Raw: buf[:n]}
		if stun.IsMessage(buf[:n]) && m.Decode() == nil && m.Type == stun.BindingRequest {
			if m, err := stun.Build(&stun.Message{TransactionID: m.TransactionID}, stun.BindingSuccess, xorAddress{stun.AttrXORMappedAddress, addrPort(from)}); err == nil {
				_, _ = conn.WriteTo(m.Raw, from)
			}
			continue
		}
		_, _ = conn.WriteTo(buf[:n], from)
	}
}

// plainListener accepts like the port of the product.
type plainListener struct{ net.Listener }

func (l plainListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &divertible{Conn: c}, nil
}

// divertible is a connection of the product's port.
type divertible struct {
	net.Conn
	reader io.Reader
	writer io.Writer
}

func (c *divertible) NetConn() net.Conn                   { return c.Conn }
func (c *divertible) Divert(from io.Reader, to io.Writer) { c.reader, c.writer = from, to }

func (c *divertible) Read(b []byte) (int, error) {
	if c.reader != nil {
		return c.reader.Read(b)
	}
	return c.Conn.Read(b)
}

func (c *divertible) Write(b []byte) (int, error) {
	if c.writer != nil {
		return c.writer.Write(b)
	}
	return c.Conn.Write(b)
}

// tlsListener accepts like the TLS port of the product.
type tlsListener struct {
	net.Listener
	config *tls.Config
}

type tlsConn struct{ *tls.Conn }

func (tlsConn) Secure() bool { return true }

func (l *tlsListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return tlsConn{tls.Server(&divertible{Conn: c}, l.config)}, nil
}

func testCertificate(t *testing.T) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

// dial connects to the server over a transport.
func (r *rig) dial(transport string) net.Conn {
	r.Helper()
	conn, err := dialTransport(transport, r.addr[transport])
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { _ = conn.Close() })
	return conn
}

func dialTransport(transport, addr string) (net.Conn, error) {
	if transport == "tls" {
		return tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true})
	}
	return net.Dial(transport, addr)
}

// eachTransport runs f over every transport, each with a server of its own.
func eachTransport(t *testing.T, change func(*Config), f func(*rig, string)) {
	for _, transport := range transportsT {
		t.Run(transport, func(t *testing.T) { f(newRig(t, change), transport) })
	}
}

// pionClient allocates with pion's client; the relay's Close frees it.
func (r *rig) pionClient(transport, user string) net.PacketConn {
	r.Helper()
	username, password := Credentials([]byte(testSecret), user, time.Now().Add(time.Hour))
	conn := r.dial(transport)
	c, err := turn.NewClient(&turn.ClientConfig{
		Conn: newClientConn(conn, transport), TURNServerAddr: serverPlaceholder,
		Username: username, Password: password, LoggerFactory: newPionLog(r.server.log),
	})
	if err != nil {
		r.Fatal(err)
	}
	if err := c.Listen(); err != nil {
		r.Fatal(err)
	}
	relay, err := c.Allocate()
	if err != nil {
		r.Fatalf("allocate over %s: %v", transport, err)
	}
	r.Cleanup(func() {
		_ = relay.Close()
		c.Close()
		_ = conn.Close()
	})
	return relay
}

// echoes sends n packets of a size through the relay and expects them back.
func (r *rig) echoes(relay net.PacketConn, peer netip.AddrPort, n, size int) {
	r.Helper()
	buf := make([]byte, 2048)
	for i := range n {
		sent := make([]byte, size)
		_, _ = rand.Read(sent)
		if _, err := relay.WriteTo(sent, net.UDPAddrFromAddrPort(peer)); err != nil {
			r.Fatalf("packet %d: %v", i, err)
		}
		if err := relay.SetReadDeadline(time.Now().Add(testWait)); err != nil {
			r.Fatal(err)
		}
		got, from, err := relay.ReadFrom(buf)
		if err != nil {
			r.Fatalf("packet %d: %v", i, err)
		}
		if string(buf[:got]) != string(sent) || addrPort(from) != peer {
			r.Fatalf("packet %d: got %d bytes from %v, want our %d from %v", i, got, from, size, peer)
		}
	}
}

// total returns the sum of a metric over all labels that match.
func (r *rig) total(name string, labels ...string) float64 {
	r.Helper()
	families, err := r.metrics.Gather()
	if err != nil {
		r.Fatal(err)
	}
	var sum float64
	for _, f := range families {
		if f.GetName() != "sallyport_turn_"+name {
			continue
		}
		for _, m := range f.GetMetric() {
			if matches(m, labels) {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// matches tells whether every wanted label value is among the metric's.
func matches(m *dto.Metric, wanted []string) bool {
	have := make(map[string]bool)
	for _, l := range m.GetLabel() {
		have[l.GetValue()] = true
	}
	for _, w := range wanted {
		if !have[w] {
			return false
		}
	}
	return true
}

// eventually waits for cond.
func eventually(t *testing.T, within time.Duration, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(within); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", within, what)
		}
	}
}

// settled fails unless the goroutines are back to what they were.
func settled(t *testing.T, before int) {
	t.Helper()
	end := time.Now().Add(testWait)
	for runtime.NumGoroutine() > before {
		if time.Now().After(end) {
			buf := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// closedByServer waits until the server ends the connection.
func closedByServer(conn net.Conn, wait time.Duration) error {
	_ = conn.SetReadDeadline(time.Now().Add(wait))
	_, err := io.Copy(io.Discard, conn)
	var timeout net.Error
	if e, ok := err.(net.Error); ok {
		timeout = e
	}
	if timeout != nil && timeout.Timeout() {
		return fmt.Errorf("still open after %v", wait)
	}
	return nil
}
