package sfu

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"syscall"

	"sallyport/sfu/internal/batch"
)

// mediaBuffer is the size in bytes asked of the kernel for the receive and send
// buffer of a UDP media socket: half a second of 100 Mbit/s. The kernel grants
// at most net.core.rmem_max and wmem_max.
const mediaBuffer = 8 << 20

// An Address is one UDP media socket as it is bound and as clients are told.
type Address struct {
	Local      netip.AddrPort // where the socket is bound
	Advertised netip.AddrPort // what the ICE candidate says; equal to Local without a mapping
}

// Sockets are the open media sockets of an SFU. They are opened before anything
// serves, so that a taken port is an error at start and not a lost call.
type Sockets struct {
	udp    []udpGroup
	tcp    []*net.TCPListener
	shared []*SharedConn

	alone   bool // see ListenAlone
	found   bool // the addresses of the UDP sockets are those of the machine, not configured
	options batch.Options
	book    *addressBook // local → advertised address, for both protocols
}

// Listen opens the UDP and TCP sockets that cfg asks for. Without a host in
// cfg.UDP or cfg.TCP it opens one socket on each useful local address, because
// an answer must leave from the address the question came to. The error names
// the address that could not be opened.
//
// If cfg.Advertise has host names or STUN servers, Listen asks for the addresses
// and takes up to 5 s; what it cannot find out is no error: until it is known
// the local address is advertised.
func Listen(cfg Config) (*Sockets, error) { return ListenShared(cfg, "") }

// ListenShared is Listen with one more UDP port, shared, which carries a TURN
// server's datagrams beside those of the SFU: see Shared. Without a host it is
// open on every local address, and the SFU uses it on its own. An error with it
// is a SharedError.
//
// The sockets of the shared port may be given, and belong to the Sockets then,
// also after an error. No others are opened beside them: the SFU uses those that
// are on an address of their own.
func ListenShared(cfg Config, shared string, given ...*net.UDPConn) (*Sockets, error) {
	return listen(cfg, shared, batch.Options{}, given...)
}

func listen(cfg Config, shared string, o batch.Options, given ...*net.UDPConn) (*Sockets, error) {
	s := &Sockets{options: o}
	if err := s.open(cfg, shared, given); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Sockets) open(cfg Config, shared string, given []*net.UDPConn) error {
	if err := s.takeShared(given); err != nil {
		return err
	}
	udp, err := bindAddresses("sfu.udp", cfg.UDP, cfg.IPv6)
	if err != nil {
		return err
	}
	if at, err := listenAddress("sfu.udp", cfg.UDP); err == nil {
		s.found = at.Addr().IsUnspecified()
	}
	tcp, err := bindAddresses("sfu.tcp", cfg.TCP, cfg.IPv6)
	if err != nil {
		return err
	}
	locals := addressesOf(udp, tcp)
	if at := s.sharedOn(shared); len(at) > 0 {
		locals = addressesOf(udp, tcp, at)
	}
	if s.book, err = newAddressBook(cfg, locals); err != nil {
		return err
	}
	if len(given) == 0 {
		if err := s.openShared(shared, cfg); err != nil {
			return err
		}
	}
	for _, c := range s.shared {
		ip := c.local.Addr()
		c.ice = slices.Contains(s.book.locals, ip) && s.book.useful(ip) && (ip.Is4() || cfg.IPv6)
	}
	for _, a := range udp {
		if s.book.useful(a.Addr()) {
			if err := s.openUDP(a); err != nil {
				return err
			}
		}
	}
	for _, a := range tcp {
		if !s.book.useful(a.Addr()) {
			continue
		}
		l, err := listenTCP(a)
		if err != nil {
			return fmt.Errorf("sfu.tcp: open media listener %s: %w", a, explain(err))
		}
		s.tcp = append(s.tcp, l)
	}
	if len(s.udp) == 0 {
		return fmt.Errorf("sfu.udp: no local address fits %q and sfu.advertise; set sfu.udp to host:port of a local address", cfg.UDP)
	}
	if !s.book.fixed() {
		s.book.discover(context.Background(), true)
	}
	return nil
}

// addressesOf lists the IP addresses of listen addresses once each.
func addressesOf(lists ...[]netip.AddrPort) []netip.Addr {
	var out []netip.Addr
	for _, a := range slices.Concat(lists...) {
		if !slices.Contains(out, a.Addr()) {
			out = append(out, a.Addr())
		}
	}
	return out
}

// groupSize is how many sockets share an address: one for each core, as far as
// readers are worth their wake-ups.
func groupSize() int { return min(runtime.GOMAXPROCS(0), 4) }

func (s *Sockets) openUDP(a netip.AddrPort) error {
	g, err := s.group(a, groupSize(), false)
	if err != nil {
		return fmt.Errorf("sfu.udp: open media socket %s: %w", a, explain(err))
	}
	s.udp = append(s.udp, g)
	return nil
}

// group opens so many sockets on one address. See batch.Listen for beside.
func (s *Sockets) group(a netip.AddrPort, size int, beside bool) (udpGroup, error) {
	g, err := batch.Listen(a, size, beside, s.options)
	for _, k := range g {
		k.SetBuffers(mediaBuffer) // the doctor tells when the kernel grants less
	}
	return g, err
}

// explain adds what to do to the error an administrator meets most often.
func explain(err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%w (another process has the port: the Calls plugin itself binds it when its licence does not allow rtcd)", err)
	}
	return err
}

// Addresses lists the UDP sockets of the SFU, those of the shared port last, in
// a stable order. What is advertised may change while a Server runs. It is the zero AddrPort for a socket that no client
// is told of.
func (s *Sockets) Addresses() []Address {
	out := make([]Address, 0, len(s.udp))
	for _, c := range s.udp {
		local := c.local()
		out = append(out, Address{Local: local, Advertised: s.mapped(local)})
	}
	for _, c := range s.shared {
		if c.ice {
			out = append(out, Address{Local: c.local, Advertised: s.mapped(c.local)})
		}
	}
	return out
}

// TCPAddresses lists the ICE-TCP listeners like Addresses.
func (s *Sockets) TCPAddresses() []Address {
	out := make([]Address, 0, len(s.tcp))
	for _, l := range s.tcp {
		local := localAddrPort(l.Addr())
		out = append(out, Address{Local: local, Advertised: s.mapped(local)})
	}
	return out
}

// Close closes every socket.
func (s *Sockets) Close() error {
	var errs []error
	for _, g := range s.udp {
		errs = append(errs, g.close())
	}
	for _, l := range s.tcp {
		errs = append(errs, l.Close())
	}
	for _, c := range s.shared {
		errs = append(errs, c.Close(), c.udp.close())
	}
	return errors.Join(errs...)
}

// mapped returns what clients are told for a local address; the zero AddrPort
// means that it is not advertised at all.
func (s *Sockets) mapped(local netip.AddrPort) netip.AddrPort {
	return withPort(s.book.advertised(local.Addr()), local.Port())
}

// mappedBefore is what mapped was before the last change.
func (s *Sockets) mappedBefore(local netip.AddrPort) netip.AddrPort {
	return withPort(s.book.before(local.Addr()), local.Port())
}

func withPort(ip netip.Addr, port uint16) netip.AddrPort {
	if !ip.IsValid() {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(ip, port)
}

// localAddrPort converts the address of a UDP or TCP socket.
func localAddrPort(a net.Addr) netip.AddrPort {
	var ap netip.AddrPort
	switch a := a.(type) {
	case *net.UDPAddr:
		ap = a.AddrPort()
	case *net.TCPAddr:
		ap = a.AddrPort()
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// bindAddresses turns a listen address into the concrete addresses to bind. key
// is the configuration key, for the error.
func bindAddresses(key, listen string, ipv6 bool) ([]netip.AddrPort, error) {
	if listen == "" {
		return nil, nil
	}
	at, err := listenAddress(key, listen)
	if err != nil {
		return nil, err
	}
	if !at.Addr().IsUnspecified() {
		return []netip.AddrPort{at}, nil
	}
	ips, err := usefulAddresses(ipv6)
	if err != nil {
		return nil, fmt.Errorf("%s: list local addresses: %w", key, err)
	}
	out := make([]netip.AddrPort, 0, len(ips))
	for _, ip := range ips {
		out = append(out, netip.AddrPortFrom(ip, at.Port()))
	}
	return out, nil
}

// listenAddress reads a listen address. Without a host it is on the unspecified
// IPv6 address, which stands for all.
func listenAddress(key, listen string) (netip.AddrPort, error) {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%s: %q is not host:port: %w", key, listen, err)
	}
	n, err := net.LookupPort("udp", port)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%s: %q is not a port: %w", key, port, err)
	}
	ip := netip.IPv6Unspecified()
	switch host {
	case "":
	case "localhost":
		ip = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	default:
		if ip, err = netip.ParseAddr(host); err != nil {
			return netip.AddrPort{}, fmt.Errorf("%s: %q is not an IP address; use one of this machine's, or leave the host out", key, host)
		}
	}
	return netip.AddrPortFrom(ip.Unmap(), uint16(n)), nil
}
