package gateway

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"

	"sallyport/sfu"
)

// Inherited are sockets that a service manager has opened for us, by the name
// that it gives them: https, http, udp, api or admin. Each stands for one key of
// the configuration, which it must fit. There may be several called udp, one for
// each address.
type Inherited map[string][]*os.File

// inheritable are the names, each by the key that it stands for.
var inheritable = map[string]string{
	"listen.https": "https", "listen.http": "http", "listen.udp": "udp",
	"sfu.api.listen": "api", "admin.listen": "admin",
}

// An opener opens sockets, or takes those that are open already.
type opener struct{ given Inherited }

func newOpener(given Inherited) *opener { return &opener{maps.Clone(given)} }

// take returns the sockets that stand for key; nobody else will.
func (o *opener) take(key string) []*os.File {
	files := o.given[inheritable[key]]
	delete(o.given, inheritable[key])
	return files
}

// rest returns an error if there are sockets that nobody has taken.
func (o *opener) rest() error {
	names := slices.Sorted(maps.Values(inheritable))
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(o.given)) {
		if slices.Contains(names, name) {
			errs = append(errs, fmt.Errorf("the service manager passes a socket named %q, for which the configuration has no use", name))
		} else {
			errs = append(errs, fmt.Errorf("the service manager passes a socket named %q: FileDescriptorName= must be one of %s", name, strings.Join(names, ", ")))
		}
	}
	return errors.Join(errs...)
}

// tcp opens the listener of key, unless addr is empty, which turns it off.
func (o *opener) tcp(key, addr string) (net.Listener, error) {
	if addr == "" {
		return nil, nil
	}
	files := o.take(key)
	switch len(files) {
	case 0:
		return listenTCP(key, addr)
	case 1:
		l, err := net.FileListener(files[0])
		if err != nil {
			return nil, fmt.Errorf("%s: the socket that the service manager passes is no TCP listener (ListenStream=): %w", key, err)
		}
		return l, errors.Join(files[0].Close(), fits(key, addr, l.Addr()))
	}
	return nil, fmt.Errorf("%s: the service manager passes %d sockets, and only one is possible: ListenStream= with a port alone takes IPv4 and IPv6", key, len(files))
}

// short is tcp for clients whose way may lose long packets.
func (o *opener) short(key, addr string) (net.Listener, error) {
	l, err := o.tcp(key, addr)
	if err != nil {
		return l, err
	}
	raw, err := l.(syscall.Conn).SyscallConn()
	if err == nil {
		err = shortSegments(raw)
	}
	if err != nil {
		return l, fmt.Errorf("%s: shorten segments: %w", key, err)
	}
	return l, nil
}

func closeAll(conns []*net.UDPConn) {
	for _, c := range conns {
		_ = c.Close()
	}
}

// udps returns the sockets of key that are open already, also with an error.
func (o *opener) udps(key, addr string) ([]*net.UDPConn, error) {
	var all []*net.UDPConn
	for _, f := range o.take(key) {
		p, err := net.FilePacketConn(f)
		if err == nil {
			_ = f.Close()
		}
		c, ok := p.(*net.UDPConn)
		if !ok {
			return all, fmt.Errorf("%s: a socket that the service manager passes is no UDP socket (ListenDatagram=): %w", key, err)
		}
		all = append(all, c)
		if err := fits(key, addr, c.LocalAddr()); err != nil {
			return all, err
		}
	}
	return all, nil
}

// fits returns an error if a socket is bound elsewhere than addr asks for, which
// others go by: redirects, and the doctor.
func fits(key, addr string, bound net.Addr) error {
	want, err := parseListen(addr)
	if err != nil {
		return fmt.Errorf("%s: %q %w", key, addr, err)
	}
	is, err := parseListen(bound.String())
	if err != nil || want.port != "0" && is.port != want.port || want.ip.IsValid() && is.ip != want.ip {
		return fmt.Errorf("%s: the service manager passes a socket on %s, the configuration says %q", key, bound, addr)
	}
	return nil
}

// udp opens the sockets of listen.udp by open, which takes those that are open
// already.
func (o *opener) udp(cfg Config, open func(given ...*net.UDPConn) (*sfu.Sockets, error)) (*sfu.Sockets, error) {
	given, err := o.udps("listen.udp", cfg.Listen.UDP)
	if err != nil {
		closeAll(given)
		return nil, err
	}
	s, err := open(given...)
	if shared, ok := errors.AsType[*sfu.SharedError](err); ok {
		return nil, explainBind("listen.udp", cfg.Listen.UDP, shared.Err)
	}
	return s, err
}

// shortSegments bounds the TCP segments of the connections that a listener
// accepts.
func shortSegments(raw syscall.RawConn) error {
	var failed error
	err := raw.Control(func(fd uintptr) {
		failed = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_MAXSEG, segmentMax)
	})
	return errors.Join(err, failed)
}
