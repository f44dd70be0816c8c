package gateway_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	// siegeWindow is how long the processor time of the product is measured
	// while an attack is on.
	siegeWindow = 4 * time.Second
	// siegeCPU is how much of a core an attack may cost then.
	siegeCPU = 0.05
	// siegeMemory is how much the product may grow through all attacks, in
	// bytes: two thousand strangers and what the Go runtime keeps.
	siegeMemory = 96 << 20
)

// A siege is the delivered binary with a call in it, under attack.
type siege struct {
	*product
	call     *talk
	peace    float64 // share of a core that the call costs
	resident int64   // memory before
}

// An attack does its worst and leaves its connections open. What it starts must
// end with the test's context.
type attack func(t *testing.T, s *siege)

func startSiege(t *testing.T) *siege {
	t.Helper()
	s := &siege{product: startProduct(t)}
	s.dialPlugin(s.API)
	s.call = s.talk(peerUDP, peerTURN)
	s.peace = s.measure()
	s.resident = s.product.resident()
	t.Logf("the call alone costs %.1f %% of a core, %d MiB", 100*s.peace, s.resident>>20)
	return s
}

// measure returns the share of a core that the product uses now.
func (s *siege) measure() float64 {
	before, began := s.cpu(), time.Now()
	<-time.After(siegeWindow)
	return float64(s.cpu()-before) / float64(time.Since(began))
}

// suffer runs an attack as a test, and then, while it is on, looks after the
// product and the call.
func (s *siege) suffer(t *testing.T, name string, do attack) {
	t.Run(name, func(t *testing.T) {
		began, before := time.Now(), s.cpu()
		s.call.mark()
		do(t, s)
		sending, cost := time.Since(began), s.cpu()-before
		extra := s.measure() - s.peace
		grown := s.product.resident() - s.resident
		t.Logf("%s in %s to take it; then %+.1f %% of a core, %+d MiB", cost, sending.Round(time.Millisecond), 100*extra, grown>>20)
		if extra > siegeCPU {
			t.Errorf("costs %.1f %% of a core, more than %.0f %%", 100*extra, 100*siegeCPU)
		}
		if grown > siegeMemory {
			t.Errorf("costs %d MiB, more than %d", grown>>20, siegeMemory>>20)
		}
		if bad := s.call.harmed(time.Since(began)); bad != "" {
			t.Errorf("the call suffers: %s", bad)
		}
		if status, err := s.get(within(t), "/"); err != nil || status != "HTTP/1.1 200 OK" {
			t.Errorf("a visitor gets %q, %v", status, err)
		}
		for _, transport := range turnTransports {
			if err := s.probe(within(t), transport, ""); err != nil {
				t.Errorf("TURN over %s: %v", transport, err)
			}
		}
	})
}

// from is the i-th loopback address that attackers come from. One address alone
// would meet its limit.
func from(i int) string { return "127.0.1." + strconv.Itoa(1+i%8) }

// dial connects as the i-th attacker, for as long as the test lasts.
func (s *siege) dial(t *testing.T, i int, network, addr string) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from(i))}}
	if network == "udp" {
		d.LocalAddr = &net.UDPAddr{IP: net.ParseIP(from(i))}
	}
	conn, err := d.DialContext(t.Context(), network, addr)
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// stream connects to the shared port with or without TLS.
func (s *siege) stream(t *testing.T, i int, transport string) net.Conn {
	t.Helper()
	if transport == "tcp" {
		return s.dial(t, i, "tcp", s.HTTPS)
	}
	conn, err := dialTLS(t.Context(), from(i), s.HTTPS)
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// crowd opens n connections at once, eight at a time.
func crowd(t *testing.T, n int, open func(i int) net.Conn) []net.Conn {
	t.Helper()
	conns := make([]net.Conn, n)
	var all sync.WaitGroup
	for first := range 8 {
		all.Go(func() {
			for i := first; i < n; i += 8 {
				conns[i] = open(i)
			}
		})
	}
	all.Wait()
	return conns
}

// metric is a value that the product shows at /metrics.
func (x *target) metric(ctx context.Context, name string) (float64, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+x.Admin+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	defer func() { _ = response.Body.Close() }()
	page, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(page)) {
		if rest, found := strings.CutPrefix(line, name+" "); found {
			return strconv.ParseFloat(strings.TrimSpace(rest), 64)
		}
	}
	return 0, fmt.Errorf("/metrics lacks %s", name)
}

// reaches fails unless a metric is soon at least n.
func (x *target) reaches(t *testing.T, name string, n int) {
	t.Helper()
	ctx := within(t)
	for {
		got, err := x.metric(ctx, name)
		if err != nil {
			t.Fatalf("%s is %v, want %d: %v", name, got, n, err)
		}
		if int(got) >= n {
			return
		}
		time.Sleep(10 * time.Millisecond) // to look costs the product something, too
	}
}

// demuxPending counts the connections of which the shared port does not know
// yet what they are.
const demuxPending = "sallyport_demux_pending_connections"

// ended waits until the product has closed conn.
func ended(conn net.Conn) error {
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	_, err := io.Copy(io.Discard, conn)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("still open after %s", patience)
	}
	return nil
}

// clientHello is the first flight of an honest TLS client.
func clientHello(t *testing.T) []byte {
	t.Helper()
	client, server := net.Pipe()
	defer func() { _ = server.Close() }()
	go func() {
		_ = tls.Client(client, insecure()).HandshakeContext(t.Context())
		_ = client.Close()
	}()
	head := make([]byte, 5)
	_, err := io.ReadFull(server, head)
	must(t, err)
	body := make([]byte, int(head[3])<<8|int(head[4]))
	_, err = io.ReadFull(server, body)
	must(t, err)
	return append(head, body...)
}
