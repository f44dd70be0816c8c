package gateway_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"sallyport/sfu/peer"
)

const (
	// siegeWindow is how long the processor time of the product is measured.
	siegeWindow = 500 * time.Millisecond
	// siegeCPU is how much of a core more than in peace it may use soon after an
	// attack, and siegeCalm is how soon.
	siegeCPU  = 0.05
	siegeCalm = 5 * time.Second
	// siegeMemory is how much the product may grow while it is attacked, in bytes,
	// and siegeRest how much of that may be left in the end.
	siegeMemory = 200 << 20
	siegeRest   = 64 << 20
	// siegeOthers is the share of the machine that programs which have nothing to
	// do with the siege may take.
	siegeOthers = 0.2
	// siegeFiles is how many files the attackers have open, and the product, too.
	siegeFiles = 16_000
)

// The address of the product, and those of its attackers.
const (
	besieged  = "10.8.0.1"
	attackers = "10.9.0.0/16"
)

// A siege is the delivered binary with a call of ten in it, under attack, in a
// network namespace from which nothing leads out.
type siege struct {
	*product
	call     *talk
	flooder  string  // binary
	peace    float64 // share of a core that the call costs
	resident int64   // memory before
}

// An attack does its worst and leaves its connections open. What it starts must
// end with the test's context.
type attack func(t *testing.T, s *siege)

// startSiege needs the namespace of a test.
func startSiege(t *testing.T) *siege {
	t.Helper()
	var files syscall.Rlimit
	must(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files))
	if files.Max < siegeFiles {
		files.Max = siegeFiles
	}
	files.Cur = files.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		t.Skipf("SKIPPED, NOT TESTED: attacks: %d files may not be open at once: %v", siegeFiles, err)
	}
	must(t, ip("link set lo up", "addr add "+besieged+"/32 dev lo", "route add local "+attackers+" dev lo"))
	s := &siege{product: startProductAt(t, besieged), flooder: buildFlooder(t)}
	s.dialPlugin(s.API)
	s.call = s.talk(peerUDP, peerTURN)
	for i := range 8 {
		s.call.listen(&s.target, []peer.Path{peer.UDP, peer.TURNUDP, peer.TURNTLS, peer.TCP}[i%4])
	}
	s.peace = s.measure(8 * siegeWindow)
	s.resident = s.product.resident()
	t.Logf("the call alone costs %.1f %% of a core, %d MiB", 100*s.peace, s.resident>>20)
	return s
}

// measure returns the share of a core that the product uses now.
func (s *siege) measure(window time.Duration) float64 {
	before, began := s.cpu(), time.Now()
	<-time.After(window)
	return float64(s.cpu()-before) / float64(time.Since(began))
}

// suffer runs an attack as a test, and looks after the product and the call while
// it is on, and when it is over. A call that suffers gets a second chance, and is
// not judged while the machine is busy with something else: that starves it, too.
func (s *siege) suffer(t *testing.T, name string, do attack) {
	for _, again := range []string{"", ", once more"} {
		ran, bad, others := false, "", s.others(t)
		t.Run(name+again, func(t *testing.T) { ran, bad = true, s.stand(t, do) })
		if !ran {
			return // it is not asked for
		}
		busy := others()
		s.calm(t, name)
		if bad == "" {
			return
		}
		t.Logf("%s: the call suffers: %s", name, bad)
		if busy > siegeOthers {
			t.Logf("NOT JUDGED: other programs took %.0f %% of this machine", 100*busy)
			return
		}
	}
	t.Errorf("%s: the call suffers each time", name)
}

// stand says what was wrong with the call during the attack, "" for nothing.
func (s *siege) stand(t *testing.T, do attack) (bad string) {
	began, before := time.Now(), s.cpu()
	s.call.mark()
	do(t, s)
	cost, grown := s.cpu()-before, s.product.resident()-s.resident
	t.Logf("%s of CPU in %s, %+d MiB", cost, time.Since(began).Round(time.Millisecond), grown>>20)
	if grown > siegeMemory {
		t.Errorf("costs %d MiB, more than %d", grown>>20, siegeMemory>>20)
	}
	if status, err := s.get(within(t), "/"); err != nil || status != "HTTP/1.1 200 OK" {
		t.Errorf("a visitor gets %q, %v", status, err)
	}
	for _, transport := range turnTransports {
		if err := s.probe(within(t), transport, ""); err != nil {
			t.Errorf("TURN over %s: %v", transport, err)
		}
	}
	return s.call.harmed(time.Since(began))
}

// calm wants the product to do no more than the call asks for, soon.
func (s *siege) calm(t *testing.T, after string) {
	t.Helper()
	for began := time.Now(); ; {
		extra := s.measure(siegeWindow) - s.peace
		if extra <= siegeCPU {
			t.Logf("calm %s after %s", time.Since(began).Round(time.Millisecond), after)
			return
		}
		if time.Since(began) > siegeCalm {
			t.Errorf("%s after %s the product still uses %.1f %% of a core more than before", siegeCalm, after, 100*extra)
			return
		}
	}
}

// recovers wants the memory back, once the garbage has been collected.
func (s *siege) recovers(t *testing.T) {
	t.Helper()
	for began := time.Now(); ; {
		response, err := http.Get("http://" + s.Admin + "/debug/pprof/heap?gc=1")
		must(t, err)
		_ = response.Body.Close()
		grown := s.product.resident() - s.resident
		if grown <= siegeRest {
			t.Logf("%+d MiB are left after %s", grown>>20, time.Since(began).Round(time.Millisecond))
			return
		}
		if time.Since(began) > patience {
			t.Errorf("%d MiB do not come back", grown>>20)
			return
		}
		<-time.After(siegeWindow)
	}
}

// from is the i-th address that attackers come from. One address alone would meet
// its limit.
func from(i int) string { return "10.9.1." + strconv.Itoa(1+i%8) }

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

// crowd opens n connections, eight at a time and at most some 2,500 a second: what
// is to suffer is the product, and not the call for want of a processor.
func crowd(t *testing.T, n int, open func(i int) net.Conn) []net.Conn {
	t.Helper()
	const atOnce, pace = 8, 3 * time.Millisecond
	conns := make([]net.Conn, n)
	var all sync.WaitGroup
	for first := range atOnce {
		all.Go(func() {
			next := time.NewTicker(pace)
			defer next.Stop()
			for i := first; i < n; i += atOnce {
				conns[i] = open(i)
				<-next.C
			}
		})
	}
	all.Wait()
	return conns
}

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
