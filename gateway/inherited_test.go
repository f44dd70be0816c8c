package gateway

import (
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// given opens a socket as a service manager would, and returns what it passes.
func given(t *testing.T, network, addr string) (*os.File, string) {
	t.Helper()
	var socket interface {
		File() (*os.File, error)
		Close() error
	}
	var at net.Addr
	if strings.HasPrefix(network, "udp") {
		p, err := net.ListenPacket(network, addr)
		if err != nil {
			t.Fatal(err)
		}
		socket, at = p.(*net.UDPConn), p.LocalAddr()
	} else {
		l, err := net.Listen(network, addr)
		if err != nil {
			t.Fatal(err)
		}
		if u, ok := l.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(false)
		}
		socket, at = l.(interface {
			File() (*os.File, error)
			Close() error
		}), l.Addr()
	}
	f, err := socket.File()
	if err != nil {
		t.Fatal(err)
	}
	_ = socket.Close()
	t.Cleanup(func() { _ = f.Close() })
	return f, at.String()
}

// TestInherited: every part works on sockets that were open before it.
func TestInherited(t *testing.T) {
	sockets := Inherited{}
	want := map[string]string{}
	for _, name := range []string{"https", "http", "api", "admin"} {
		f, at := given(t, "tcp", "127.0.0.1:0")
		sockets[name], want[name] = []*os.File{f}, at
	}
	one, at := given(t, "udp", "127.0.0.1:0")
	_, port, _ := net.SplitHostPort(at)
	other, _ := given(t, "udp", "127.0.0.2:"+port)
	all, _ := given(t, "udp", "[::1]:"+port)
	sockets["udp"], want["udp"] = []*os.File{one, other, all}, at
	edit := func(c *Config) { c.Listen.UDP = ":" + port }
	g := startGatewayWith(t, edit, func(o *Options) { o.Inherited, o.SelfTest = sockets, 100*time.Millisecond })

	a := g.Addrs()
	for name, is := range map[string]string{"https": a.HTTPS, "http": a.HTTP, "api": a.API, "admin": a.Admin, "udp": a.UDP} {
		if is != want[name] {
			t.Errorf("%s is on %s, want %s", name, is, want[name])
		}
	}
	g.results(t, time.Time{}, true) // through the ports to TURN and the media server
	plainHTTP(t, a.HTTP, "https://localhost:"+portString(a.HTTPS)+"/x")
	for _, at := range []string{at, "127.0.0.2:" + port} { // where clients are told that media goes, too
		if got := g.Status().Media.Addresses; !slices.Contains(got, at) {
			t.Errorf("media is offered on %v, not on %s", got, at)
		}
	}
}

// TestInheritedForAllAddresses: TURN works, and media has its other port.
func TestInheritedForAllAddresses(t *testing.T) {
	f, at := given(t, "udp", ":0")
	_, port, _ := net.SplitHostPort(at)
	edit := func(c *Config) { c.Listen.UDP = ":" + port }
	g := startGatewayWith(t, edit, func(o *Options) {
		o.Inherited, o.SelfTest = Inherited{"udp": {f}}, 100*time.Millisecond
	})
	g.results(t, time.Time{}, true)
	if got := g.Status().Media.Addresses; len(got) != 1 || strings.HasSuffix(got[0], ":"+port) {
		t.Errorf("media is offered on %v", got)
	}
}

func TestInheritedWithoutSFU(t *testing.T) {
	f, at := given(t, "udp", "127.0.0.1:0")
	edit := func(c *Config) { c.SFU.Mode, c.TURN.RelayTo = ModeOff, []string{"192.0.2.1:8443"} }
	g := startGatewayWith(t, edit, func(o *Options) { o.Inherited = Inherited{"udp": {f}} })
	if got := g.Addrs().UDP; got != at {
		t.Errorf("UDP is on %s, want %s", got, at)
	}
	probeTURN(t, g, "udp")
}

// TestInheritedSocketsThatDoNotFit: the error says which key, and what is wrong.
func TestInheritedSocketsThatDoNotFit(t *testing.T) {
	mm := startMattermost(t)
	pass := func(network, addr string) *os.File {
		f, _ := given(t, network, addr)
		return f
	}
	tcp := func() *os.File { return pass("tcp", "127.0.0.1:0") }
	udp := func() *os.File { return pass("udp", "127.0.0.1:0") }
	for name, test := range map[string]struct {
		given Inherited
		edit  func(*Config)
		want  string
	}{
		"unknown name": {Inherited{"sallyport.socket": {tcp()}}, nil, `a socket named "sallyport.socket": FileDescriptorName= must be one of admin, api, http, https, udp`},
		"off":          {Inherited{"http": {tcp()}}, func(c *Config) { c.Listen.HTTP = "" }, `the service manager passes a socket named "http", for which the configuration has no use`},
		"no SFU": {Inherited{"api": {tcp()}}, func(c *Config) { c.SFU.Mode, c.TURN.Enabled = ModeOff, false },
			`the service manager passes a socket named "api", for which the configuration has no use`},
		"two":       {Inherited{"https": {tcp(), tcp()}}, nil, "listen.https: the service manager passes 2 sockets, and only one is possible"},
		"UDP":       {Inherited{"https": {udp()}}, nil, "listen.https: the socket that the service manager passes is no TCP listener (ListenStream=)"},
		"TCP":       {Inherited{"udp": {udp(), tcp()}}, nil, "listen.udp: a socket that the service manager passes is no UDP socket (ListenDatagram=)"},
		"port":      {Inherited{"https": {tcp()}}, func(c *Config) { c.Listen.HTTPS = "127.0.0.1:1" }, `, the configuration says "127.0.0.1:1"`},
		"address":   {Inherited{"udp": {udp()}}, func(c *Config) { c.Listen.UDP = "127.0.0.2:0" }, `, the configuration says "127.0.0.2:0"`},
		"unix":      {Inherited{"admin": {pass("unix", t.TempDir()+"/s")}}, nil, "admin.listen: the service manager passes a socket on "},
		"not a one": {Inherited{"api": {os.Stderr}}, nil, "sfu.api.listen: the socket that the service manager passes is no TCP listener"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, o := testConfig(mm), (&testGateway{log: &logLines{}}).options()
			if test.edit != nil {
				test.edit(&cfg)
			}
			o.Inherited = test.given
			g, err := New(cfg, o)
			if err == nil {
				_ = g.Close()
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %q, want %q", err, test.want)
			}
		})
	}
}
