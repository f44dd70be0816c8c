package gateway_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
)

// A router stands between clients and a server, in a network namespace of its
// own. nftables(8) decide what it lets through and what that looks like.
//
//	client 10.78.N.2 ─veth─ 10.78.N.1 router 10.79.N.2 ─veth─ 10.79.N.1 server
//
// There is the same in IPv6, with fd78 and fd79. Other addresses of the server are
// reached by way of the last one.
type router struct {
	elsewhere
	client, client6 netip.Addr
	inside          netip.Addr // of the router, on the clients' side
	server, server6 netip.Addr // on its link to the router
}

// accept is the rule of a router that is in nobody's way. Others are written into
// the same chain, which drops what no rule accepts, or after it.
const accept = "accept"

var routers atomic.Int32

// newRouter connects clients with a server. In the namespace of the test only
// sockets that are bound to the client's address go by way of the router.
func newRouter(t *testing.T, clients, server elsewhere, rules string) *router {
	t.Helper()
	n := routers.Add(1)
	in := func(format string) string { return fmt.Sprintf(format, n) }
	r := &router{
		elsewhere: newElsewhere(t),
		client:    netip.MustParseAddr(in("10.78.%d.2")), client6: netip.MustParseAddr(in("fd78:%d::2")),
		inside: netip.MustParseAddr(in("10.78.%d.1")),
		server: netip.MustParseAddr(in("10.79.%d.1")), server6: netip.MustParseAddr(in("fd79:%d::1")),
	}
	near, far := clients.path(t), server.path(t)
	must(t, r.do(func() error {
		return ip("link set lo up",
			"link add name in type veth peer name "+in("c%d")+" netns "+near,
			"link add name out type veth peer name "+in("r%d")+" netns "+far,
			"link set in up", "link set out up",
			"addr add "+in("10.78.%d.1/24")+" dev in", "addr add "+in("10.79.%d.2/24")+" dev out",
			"-6 addr add "+in("fd78:%d::1/64")+" dev in nodad", "-6 addr add "+in("fd79:%d::2/64")+" dev out nodad")
	}))
	must(t, clients.do(func() error {
		return ip("link set "+in("c%d")+" up",
			"addr add "+in("10.78.%d.2/24")+" dev "+in("c%d"), "-6 addr add "+in("fd78:%d::2/64")+" dev "+in("c%d")+" nodad",
			in("rule add from 10.78.%d.2 lookup 1%[1]d"), in("-6 rule add from fd78:%d::2 lookup 1%[1]d"),
			in("route add default via 10.78.%d.1 table 1%[1]d"), in("-6 route add default via fd78:%d::1 table 1%[1]d"))
	}))
	must(t, server.do(func() error {
		return ip("link set lo up", "link set "+in("r%d")+" up",
			"addr add "+in("10.79.%d.1/24")+" dev "+in("r%d"), "-6 addr add "+in("fd79:%d::1/64")+" dev "+in("r%d")+" nodad",
			in("route add 10.78.%d.0/24 via 10.79.%[1]d.2"), in("-6 route add fd78:%d::/64 via fd79:%[1]d::2"))
	}))
	must(t, r.do(func() error {
		for _, family := range []string{"ipv4", "ipv6"} {
			if err := os.WriteFile("/proc/sys/net/"+family+"/conf/all/forwarding", []byte("1"), 0o644); err != nil {
				return err
			}
		}
		if err := ip("route add default via "+r.server.String(), "-6 route add default via "+r.server6.String()); err != nil {
			return err
		}
		return nft(fmt.Sprintf("table inet lab {\nchain forward {\ntype filter hook forward priority 0; policy drop;\n%s\n}\n}\n", rules))
	}))
	return r
}

// masquerade hides all clients behind the address of the router, and gives each
// flow a port of its own at random.
const masquerade = `ct state established,related accept
iifname "in" accept
}
chain nat {
type nat hook postrouting priority srcnat; oifname "out" masquerade random,fully-random`

// nft runs commands of nft(8).
func nft(commands string) error {
	command := exec.Command("nft", "-f", "-")
	command.Stdin = strings.NewReader(commands)
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("nft: %w: %s\n%s", err, out, commands)
	}
	return nil
}

// filters reports whether routers can be had: some kernels have no nftables, or
// no veth, and some machines no nft(8).
func filters(t *testing.T) error {
	t.Helper()
	if _, err := exec.LookPath("nft"); err != nil {
		return fmt.Errorf("%w: apt-get install nftables", err)
	}
	return newElsewhere(t).do(func() error {
		if err := ip("link add name a type veth peer name b"); err != nil {
			return err
		}
		return nft("table inet lab {\nchain forward {\ntype filter hook forward priority 0;\n" + masquerade + "\n}\n}\n")
	})
}

// path names the namespace for ip(8), while the test runs.
func (e elsewhere) path(t *testing.T) string {
	t.Helper()
	var f *os.File
	must(t, e.do(func() (err error) {
		f, err = os.Open("/proc/thread-self/ns/net")
		return err
	}))
	t.Cleanup(func() { _ = f.Close() })
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd())
}

// run starts a program there, and kills it when the test ends.
func (e elsewhere) run(t *testing.T, command *exec.Cmd) *bytes.Buffer {
	t.Helper()
	var said bytes.Buffer
	command.Stdout, command.Stderr = &said, &said
	must(t, e.do(command.Start))
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	})
	return &said
}

// A site is one more server, in a network namespace of its own, with an API that
// the test reaches directly.
type site struct {
	product
	there elsewhere
}

var sites atomic.Int32

// newSite makes the namespace, serve runs the product in it.
func newSite(t *testing.T, commands ...string) (s *site, api string) {
	t.Helper()
	s = &site{product: product{target: target{t: t}, log: newLogBook()}, there: newElsewhere(t)}
	n := sites.Add(1)
	name, net, near := fmt.Sprintf("s%d", n), fmt.Sprintf("10.80.%d.", n), elsewhere(nil).path(t)
	must(t, s.there.do(func() error {
		return ip("link set lo up", "link add name api type veth peer name "+name+" netns "+near,
			"link set api up", "addr add "+net+"1/24 dev api")
	}))
	must(t, ip("link set "+name+" up", "addr add "+net+"2/24 dev "+name))
	must(t, s.there.do(func() error { return ip(commands...) }))
	return s, net + "1"
}
