package gateway_test

import (
	"cmp"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/sfu/peer"
)

// The addresses of the network: the server's, and those of the clients, of which
// the first is the Calls plugin's.
const (
	farAddress  = "10.77.0.1"
	nearAddress = "10.77.1.%d"
	nearCount   = 12
)

// A network is sallyport as it is delivered in one network namespace, and room
// for clients in another, with a link for each.
type network struct {
	product
	binary string    // of the product
	there  elsewhere // where it is
	cable  cable
	used   int // addresses of clients
}

// inNetwork runs the calling test in a network, in a process of its own.
func inNetwork(t *testing.T, test func(*network)) {
	t.Helper()
	needPrograms(t, "ip", "go")
	if os.Getenv(inNamespace) == "" {
		if f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0); err != nil {
			t.Skipf("SKIPPED, NOT TESTED: calls over bad links: no TUN device to be had (%v): run as root", err)
		} else {
			_ = f.Close()
		}
		judgeInNamespace(t, "-test.parallel", "32") // most of them wait most of the time
		return
	}
	test(newNetwork(t))
}

// judgeInNamespace is rerunInNamespace for what goes by the clock. A machine that
// stood still meanwhile was itself a bad link: then the test has three tries.
func judgeInNamespace(t *testing.T, flags ...string) {
	t.Helper()
	const steady = 100 * time.Millisecond
	for tries := 1; ; tries++ {
		pause := longestPause()
		out, err := runInNamespace(t, flags...)
		stood := pause()
		if err == nil {
			t.Logf("in the namespace:\n%s", out)
			return
		}
		if stood < steady || tries == 3 {
			t.Errorf("in the namespace: %v\n%s", err, out)
			return
		}
		t.Logf("once more, since this machine stood still for %v: %v\n%s", stood, err, out)
	}
}

// longestPause returns what tells, later, for how long this process did not run at
// most.
func longestPause() func() time.Duration {
	done, told := make(chan struct{}), make(chan time.Duration)
	go func() {
		var most time.Duration
		for last := time.Now(); ; {
			select {
			case <-done:
				told <- most
				return
			case <-time.After(5 * time.Millisecond):
			}
			now := time.Now()
			most, last = max(most, now.Sub(last)), now
		}
	}()
	return func() time.Duration { close(done); return <-told }
}

func newNetwork(t *testing.T) *network {
	t.Helper()
	n := &network{product: product{target: target{t: t}, log: newLogBook()}}
	there := newElsewhere(t)
	n.cable.ends = map[netip.Addr]*access{}
	var err error
	n.cable.near, err = openTUN("near")
	must(t, err)
	commands := []string{"link set lo up", fmt.Sprintf("link set near mtu %d up", mtu)}
	for i := range nearCount {
		commands = append(commands, fmt.Sprintf("addr add "+nearAddress+"/16 dev near", i+1))
	}
	must(t, ip(commands...))
	must(t, there.do(func() error {
		if n.cable.far, err = openTUN("far"); err != nil {
			return err
		}
		return ip("link set lo up", fmt.Sprintf("link set far mtu %d up", mtu), "addr add "+farAddress+"/16 dev far")
	}))
	for i := range nearCount {
		n.cable.ends[nth(i)] = &access{up: newLink(n.cable.far), down: newLink(n.cable.near)}
	}
	n.cable.run(t)
	n.there, n.binary = there, build(t, "sallyport")
	n.serve(n.binary, there, layout{https: farAddress + ":443", media: farAddress, api: farAddress})
	return n
}

func nth(client int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf(nearAddress, client+1)) }

func ip(commands ...string) error {
	for _, c := range commands {
		if out, err := exec.Command("ip", strings.Fields(c)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", c, err, out)
		}
	}
	return nil
}

// A layout is what differs between the servers of these tests.
type layout struct {
	https     string // host and port of HTTPS
	media     string // IP address of all UDP, and of the media's TCP
	advertise string // if not empty
	api       string // IP address
	perUser   int    // turn.user_allocations, if not 0
}

// build builds the product.
func build(t *testing.T, command string) (file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), command)
	if out, err := exec.Command("go", "build", "-o", file, "../cmd/"+command).CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", command, err, out)
	}
	return file
}

// serve runs a build of the product elsewhere, on its usual ports.
func (p *product) serve(binary string, there elsewhere, at layout) {
	t, dir := p.t, p.t.TempDir()
	t.Helper()
	for name, content := range map[string]string{
		"turn-secret": e2eTURNSecret, "client-key": e2eClientKey,
		"config.yaml": fmt.Sprintf(`
domain: %[2]s
upstream: http://127.0.0.1:8065
listen: {https: "%[3]s", http: "", udp: "%[2]s:443"}
tls: {source: selfsigned}
turn: {secret_file: %[1]s/turn-secret, user_allocations: %[7]d}
sfu:
  udp: %[2]s:8443
  tcp: %[2]s:8443
  advertise: [%[6]s]
  api: {listen: "%[4]s:8045", clients: [{id: %[5]s, key_file: %[1]s/client-key}], store: ""}
proxy: {spool: {dir: ""}}
admin: {listen: "%[4]s:9443"}
`, dir, at.media, at.https, at.api, e2eClient, at.advertise, cmp.Or(at.perUser, 24)),
	} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
	must(t, there.do(func() error {
		l, err := net.Listen("tcp", "127.0.0.1:8065")
		if err == nil {
			s := &http.Server{Handler: http.HandlerFunc(page)}
			t.Cleanup(func() { _ = s.Close() })
			go func() { _ = s.Serve(l) }()
		}
		return err
	}))
	command := exec.Command(binary, "serve", "-config", filepath.Join(dir, "config.yaml"))
	command.Env = ownEnvironment()
	p.run(command, func() error { return there.do(command.Start) })
	line, err := p.log.await(within(t), `"msg":"serving"`)
	must(t, err)
	p.Addrs = addresses(t, line)
	p.dialPlugin(p.API)
}

// A client is a participant with a link of its own.
type client struct {
	*peer.Peer
	link *access
	view *view // of the screen
	ears *ears

	opened time.Time // when he first had the high layer, if it matters
}

// client brings one into the call over a path. prepare, if not nil, is called with
// his link before.
func (n *network) client(path peer.Path, prepare func(*access)) *client {
	t := n.t
	t.Helper()
	n.used++
	at := nth(n.used)
	c := &client{link: n.cable.ends[at], view: newView(), ears: &ears{}}
	if prepare != nil {
		prepare(c.link)
	}
	cfg := n.participant(path)
	cfg.Feedback, cfg.LocalIP = true, at
	cfg.OnPacket = func(track *peer.Track, packet []byte) {
		if track.Type == "voice" {
			c.ears.packet(track.Sender, packet)
		} else {
			c.view.packet(track, packet)
		}
	}
	cfg.DialTURN = func(_, _ string) (net.Conn, error) {
		if path == peer.TURNTLS {
			return dialTLS(t.Context(), at.String(), n.HTTPS)
		}
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: at.AsSlice()}}
		return d.Dial("tcp", n.HTTPS)
	}
	var err error
	if c.Peer, err = peer.Join(within(t), n.plugin, cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if s, err := c.Selected(); err != nil || s.Path != path {
		t.Fatalf("media takes %v, %v; want %s", s, err, path)
	}
	return c
}
