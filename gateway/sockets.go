package gateway

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"sallyport/gateway/admin"
	"sallyport/sfu"
)

// sockets is every socket we listen on. Those that are off are nil.
type sockets struct {
	https, http, api, admin net.Listener
	commands                net.Listener
	media                   *sfu.Sockets
	udp                     *sfu.Sockets // listen.udp without an SFU, among whose it is otherwise
}

// Addrs are the addresses that the listeners are bound to, as host:port; empty
// for those that are off. MediaUDP and MediaTCP are the first of each.
type Addrs struct {
	HTTPS, HTTP, UDP, API, Admin, MediaUDP, MediaTCP string

	Commands string // path of admin.socket
}

// open opens everything that cfg asks for, or takes it from what is given. After
// an error, close releases what was opened.
func (s *sockets) open(cfg Config, given Inherited) error {
	o := newOpener(given)
	var err error
	if s.https, err = o.short("listen.https", cfg.Listen.HTTPS); err != nil {
		return err
	}
	if s.http, err = o.tcp("listen.http", cfg.Listen.HTTP); err != nil {
		return err
	}
	if cfg.Listen.UDP != "" && cfg.TURN.Enabled && cfg.SFU.Mode != ModeRTCD {
		if s.udp, err = o.udp(cfg, func(given ...*net.UDPConn) (*sfu.Sockets, error) {
			return sfu.ListenAlone(cfg.Listen.UDP, given...)
		}); err != nil {
			return err
		}
	}
	if cfg.SFU.Mode == ModeRTCD {
		if s.media, err = o.udp(cfg, func(given ...*net.UDPConn) (*sfu.Sockets, error) {
			return sfu.ListenShared(cfg.SFU.Config, cfg.Listen.UDP, given...)
		}); err != nil {
			return err
		}
		if s.api, err = o.tcp("sfu.api.listen", cfg.SFU.API.Listen); err != nil {
			return err
		}
	}
	if s.admin, err = o.tcp("admin.listen", cfg.Admin.Listen); err != nil {
		return err
	}
	if s.commands, err = listenCommands(cfg.Admin.Socket); err != nil {
		return err
	}
	return o.rest()
}

// listenCommands opens admin.socket. The default has a directory where a service
// manager has made one: elsewhere there is no socket.
func listenCommands(path string) (net.Listener, error) {
	if path == "" {
		return nil, nil
	}
	if _, err := os.Stat(filepath.Dir(path)); path == defaultSocket && errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	l, err := admin.ListenSocket(path)
	if err != nil {
		return nil, explainBind("admin.socket", path, err)
	}
	return l, nil
}

// close closes them all. Those that their part has closed already are no error.
func (s *sockets) close() error {
	var errs []error
	for _, l := range []net.Listener{s.https, s.http, s.api, s.admin, s.commands} {
		if l != nil {
			errs = append(errs, unlessClosed(l.Close()))
		}
	}
	for _, m := range []*sfu.Sockets{s.media, s.udp} {
		if m != nil {
			errs = append(errs, unlessClosed(m.Close()))
		}
	}
	return errors.Join(errs...)
}

// unlessClosed is err, or nil if all that is wrong is that something was closed
// before.
func unlessClosed(err error) error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var errs []error
		for _, e := range joined.Unwrap() {
			errs = append(errs, unlessClosed(e))
		}
		return errors.Join(errs...)
	}
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Addrs returns the addresses as bound.
func (g *Gateway) Addrs() Addrs {
	s := &g.sockets
	a := Addrs{HTTPS: addrOf(s.https), HTTP: addrOf(s.http), API: addrOf(s.api), Admin: addrOf(s.admin), Commands: addrOf(s.commands)}
	if shared := s.shared(); len(shared) > 0 {
		a.UDP = shared[0].LocalAddr().String()
	}
	if s.media != nil {
		if udp := s.media.Addresses(); len(udp) > 0 {
			a.MediaUDP = udp[0].Local.String()
		}
		if tcp := s.media.TCPAddresses(); len(tcp) > 0 {
			a.MediaTCP = tcp[0].Local.String()
		}
	}
	return a
}

func addrOf(l net.Listener) string {
	if l == nil {
		return ""
	}
	return l.Addr().String()
}

// portOf is the TCP port of l, 0 if l is nil.
func portOf(l net.Listener) int {
	if l == nil {
		return 0
	}
	return l.Addr().(*net.TCPAddr).Port
}

// hostOf is the address of l, "" if that is any.
func hostOf(l net.Listener) string {
	if ip := l.Addr().(*net.TCPAddr).IP; !ip.IsUnspecified() {
		return ip.String()
	}
	return ""
}

// httpsPort is the port that redirects name: the one that was asked for, or the
// bound one if any would do.
func httpsPort(cfg Config, l net.Listener) string {
	if _, port, err := net.SplitHostPort(cfg.Listen.HTTPS); err == nil && port != "0" && port != "https" {
		return port
	}
	return strconv.Itoa(portOf(l))
}

func listenTCP(key, addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, explainBind(key, addr, err)
	}
	return l, nil
}

// segmentMax is the longest TCP segment that we send on the HTTPS port and ask
// clients for, in bytes: what fits the least MTU of IPv6. Longer packets get lost
// without a word on the way through many a VPN, and a ClientHello of today is
// longer.
const segmentMax = 1280 - 40 - 20

// shared is what there is of listen.udp for TURN.
func (s *sockets) shared() []*sfu.SharedConn {
	switch {
	case s.media != nil:
		return s.media.Shared()
	case s.udp != nil:
		return s.udp.Shared()
	}
	return nil
}

// explainBind says which key cannot be satisfied, why, and what to do.
func explainBind(key, addr string, err error) error {
	advice := ""
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		advice = " (another process has this port: `ss -lntup` shows which; stop it or change " + key + ")"
	case errors.Is(err, syscall.EACCES):
		advice = " (ports below 1024 need the capability CAP_NET_BIND_SERVICE: `AmbientCapabilities=` in the systemd unit, or `setcap cap_net_bind_service=+ep` on the binary)"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		advice = " (no interface of this machine has that address)"
	}
	return fmt.Errorf("%s: open %q: %w%s", key, addr, err, advice)
}
