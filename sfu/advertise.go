package sfu

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

// stunPrefix begins an entry of Config.Advertise that names a STUN server.
const stunPrefix = "stun:"

// An advertisement is one entry of Config.Advertise. Exactly one of external,
// host and server is set.
type advertisement struct {
	external netip.Addr // what clients are told
	host     string     // a name that stands for it
	server   string     // a STUN server that knows it, host:port
	internal netip.Addr // whose it is; zero: of every local address of the family
}

// The forms of an entry; they cannot be mixed.
const (
	formSingle = "address"
	formPair   = "external/internal pair"
	formSTUN   = "STUN server"
)

func (a advertisement) form() string {
	switch {
	case a.server != "":
		return formSTUN
	case a.internal.IsValid():
		return formPair
	}
	return formSingle
}

// CheckAdvertise reports what is wrong with Config.Advertise, entry by entry:
// one error for each of entries, nil where there is none, and as mixed whether
// they are not all of one form. It does no I/O.
func CheckAdvertise(entries []string, ipv6 bool) (errs []error, mixed bool) {
	errs = make([]error, len(entries))
	form := ""
	for i, e := range entries {
		a, err := parseAdvertisement(e)
		if err == nil && a.external.Is6() && !ipv6 {
			err = fmt.Errorf("%s is an IPv6 address, but sfu.ipv6 is false", a.external)
		}
		if errs[i] = err; err != nil {
			continue
		}
		mixed = mixed || form != "" && form != a.form()
		form = a.form()
	}
	return errs, mixed
}

func parseAdvertisement(entry string) (advertisement, error) {
	bad := fmt.Errorf("%q is not an IP address, a host name, external/internal or stun:host:port", entry)
	if server, ok := strings.CutPrefix(entry, stunPrefix); ok {
		host, port, err := net.SplitHostPort(server)
		n, errPort := strconv.ParseUint(port, 10, 16)
		if err != nil || errPort != nil || n == 0 || !isUnicast(host) && !isHostName(host) {
			return advertisement{}, bad
		}
		return advertisement{server: server}, nil
	}
	external, internal, pair := strings.Cut(entry, "/")
	var a advertisement
	switch {
	case isUnicast(external):
		a.external = netip.MustParseAddr(external).Unmap()
	case isHostName(external):
		a.host = external
	default:
		return a, bad
	}
	if !pair {
		return a, nil
	}
	if !isUnicast(internal) {
		return a, bad
	}
	a.internal = netip.MustParseAddr(internal).Unmap()
	if a.external.IsValid() && a.external.Is4() != a.internal.Is4() {
		return a, fmt.Errorf("%q pairs IPv4 with IPv6", entry)
	}
	return a, nil
}

// isUnicast reports whether s is an address somebody can be reached at.
func isUnicast(s string) bool {
	ip, err := netip.ParseAddr(s)
	return err == nil && ip.Zone() == "" && !ip.IsUnspecified() && !ip.IsMulticast()
}

// isHostName reports whether s may be a DNS name. The last label must not be a
// number: that is an address with a mistake.
func isHostName(s string) bool {
	s = strings.TrimSuffix(s, ".")
	labels := strings.Split(s, ".")
	for _, l := range labels {
		odd := func(r rune) bool {
			return r != '-' && r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
		}
		if l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' || strings.ContainsFunc(l, odd) {
			return false
		}
	}
	return len(s) <= 253 && strings.Trim(labels[len(labels)-1], "0123456789") != ""
}

// An addressBook knows which address clients are told for each local one. What
// names and STUN servers say may change; a failure changes nothing.
type addressBook struct {
	entries []advertisement
	locals  []netip.Addr // of the media sockets
	ipv6    bool
	ask     asker

	state atomic.Pointer[addressState]

	mu        sync.Mutex // guards the following; held through discover
	hosts     map[string]resolved
	reflexive map[netip.Addr]netip.Addr // by local address
	failing   map[string]error          // what could not be found out last time
}

// An addressState is a mapping and the one before it, which an ICE agent that is
// just gathering may have seen. A nil mapping advertises local addresses.
type addressState struct{ now, before map[netip.Addr]netip.Addr }

// resolved is what a host name stands for; zero where it has no address.
type resolved struct{ v4, v6 netip.Addr }

// newAddressBook reads Config.Advertise for a machine with the given local
// addresses. Until discover has run, names and STUN servers are not asked.
func newAddressBook(cfg Config, locals []netip.Addr) (*addressBook, error) {
	b := &addressBook{
		locals: locals, ipv6: cfg.IPv6, ask: network{},
		hosts: map[string]resolved{}, reflexive: map[netip.Addr]netip.Addr{}, failing: map[string]error{},
	}
	for _, e := range cfg.Advertise {
		a, err := parseAdvertisement(e)
		if err != nil {
			return nil, fmt.Errorf("sfu.advertise: %w", err)
		}
		b.entries = append(b.entries, a)
	}
	m := b.assemble()
	b.state.Store(&addressState{now: m, before: m})
	return b, nil
}

// fixed reports whether the mapping can never change.
func (b *addressBook) fixed() bool {
	return !slices.ContainsFunc(b.entries, func(a advertisement) bool { return a.host != "" || a.server != "" })
}

// advertised returns the address clients are told for a local one; the zero
// Addr means that it is not advertised.
func (b *addressBook) advertised(local netip.Addr) netip.Addr {
	return lookIn(b.state.Load().now, local)
}

// before is what advertised was before the last change.
func (b *addressBook) before(local netip.Addr) netip.Addr {
	return lookIn(b.state.Load().before, local)
}

func lookIn(m map[netip.Addr]netip.Addr, local netip.Addr) netip.Addr {
	if m == nil {
		return local
	}
	return m[local]
}

// useful reports whether a local address may be advertised at some time, so
// that it needs sockets.
func (b *addressBook) useful(local netip.Addr) bool {
	if len(b.entries) == 0 {
		return true
	}
	for _, a := range b.entries {
		switch {
		case a.internal.IsValid():
			if a.internal == local {
				return true
			}
		case slices.Contains(b.subjects(a), local):
			return true
		}
	}
	return false
}

// subjects lists the local addresses that an entry without internal address is
// for: those of its family, without loopback if there are others.
func (b *addressBook) subjects(a advertisement) []netip.Addr {
	var all, reachable []netip.Addr
	for _, l := range b.locals {
		if a.external.IsValid() && a.external.Is4() != l.Is4() {
			continue
		}
		if all = append(all, l); !l.IsLoopback() {
			reachable = append(reachable, l)
		}
	}
	if len(reachable) > 0 {
		return reachable
	}
	return all
}

// assemble makes the mapping of what is known. What is not known yet leaves the
// local address in its place.
func (b *addressBook) assemble() map[netip.Addr]netip.Addr {
	if len(b.entries) == 0 {
		return nil
	}
	m := map[netip.Addr]netip.Addr{}
	for _, a := range b.entries {
		subjects := []netip.Addr{a.internal}
		if !a.internal.IsValid() {
			subjects = b.subjects(a)
		}
		for _, l := range subjects {
			if ext := b.external(a, l); ext.IsValid() {
				m[l] = ext
			}
		}
	}
	return m
}

// external is what an entry makes of a local address.
func (b *addressBook) external(a advertisement, local netip.Addr) netip.Addr {
	switch {
	case a.server != "":
		if ext := b.reflexive[local]; ext.IsValid() {
			return ext
		}
		return local
	case a.host == "":
		return a.external
	}
	r, known := b.hosts[a.host]
	switch {
	case !known:
		return local
	case local.Is4():
		return r.v4
	}
	return r.v6
}

// update makes what is known the mapping, and reports whether that changed
// anything. It needs b.mu.
func (b *addressBook) update() bool {
	old, now := b.state.Load(), b.assemble()
	if maps.Equal(old.now, now) {
		return false
	}
	b.state.Store(&addressState{now: now, before: old.now})
	return true
}

// trouble returns what could not be found out last time, nil if everything was.
func (b *addressBook) trouble() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var errs []error
	for _, k := range slices.Sorted(maps.Keys(b.failing)) {
		errs = append(errs, b.failing[k])
	}
	return errors.Join(errs...)
}
