package sfu

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/pion/stun"
)

const (
	// discoverTime bounds one round of questions, which are asked all at once.
	discoverTime = 5 * time.Second
	// hostEvery and stunEvery are how often names and STUN servers are asked
	// again: a STUN server is somebody else's. After a failure both are asked
	// again after retryEvery, up to retries times in a row.
	hostEvery  = time.Minute
	stunEvery  = 3 * time.Minute
	retryEvery = 15 * time.Second
	retries    = 4
	// firstRetransmit is when a STUN request is sent again, and twice as long
	// after that (RFC 8489 §6.2.1).
	firstRetransmit = 500 * time.Millisecond
)

// An asker asks the network. There is one; tests have another.
type asker interface {
	// lookup returns the addresses of a host.
	lookup(ctx context.Context, host string) ([]netip.Addr, error)
	// reflexive returns the address that a STUN server sees instead of local.
	reflexive(ctx context.Context, server string, local netip.Addr) (netip.Addr, error)
}

// discover asks for what may have changed: names always, STUN servers if
// servers is set. It reports whether what clients are told has changed. What
// could not be found out stays what it was.
func (b *addressBook) discover(ctx context.Context, servers bool) (changed bool) {
	ctx, cancel := context.WithTimeout(ctx, discoverTime)
	defer cancel()
	b.mu.Lock()
	defer b.mu.Unlock()
	var wg sync.WaitGroup
	var mu sync.Mutex // guards what the questions below write
	var names []string
	for _, a := range b.entries {
		if a.host == "" || slices.Contains(names, a.host) {
			continue
		}
		names = append(names, a.host)
		last := b.hosts[a.host]
		wg.Go(func() {
			r, err := b.resolve(ctx, a.host, last)
			mu.Lock()
			defer mu.Unlock()
			b.note("host "+a.host, err)
			if err == nil {
				b.hosts[a.host] = r
			}
		})
	}
	if stun := b.servers(); servers && len(stun) > 0 {
		for _, local := range b.subjects(advertisement{}) {
			wg.Go(func() {
				ext, err := b.askAll(ctx, stun, local)
				mu.Lock()
				defer mu.Unlock()
				b.note("stun "+local.String(), err)
				if err == nil {
					b.reflexive[local] = ext
				}
			})
		}
	}
	wg.Wait()
	return b.update()
}

// note remembers how a question ended.
func (b *addressBook) note(question string, err error) {
	if err == nil {
		delete(b.failing, question)
		return
	}
	b.failing[question] = err
}

func (b *addressBook) servers() []string {
	var out []string
	for _, a := range b.entries {
		if a.server != "" {
			out = append(out, a.server)
		}
	}
	return out
}

// resolve looks up a host. Of several addresses of a family it takes the one it
// took last time, if that is among them still, else the lowest, so that it does
// not change with the order of answers.
func (b *addressBook) resolve(ctx context.Context, host string, last resolved) (resolved, error) {
	ips, err := b.ask.lookup(ctx, host)
	if err != nil {
		return resolved{}, fmt.Errorf("look up %s: %w", host, err)
	}
	var v4, v6 []netip.Addr
	for _, ip := range ips {
		switch ip = ip.Unmap().WithZone(""); {
		case !b.plausible(ip):
		case ip.Is4():
			v4 = append(v4, ip)
		default:
			v6 = append(v6, ip)
		}
	}
	r := resolved{steady(v4, last.v4), steady(v6, last.v6)}
	if r == (resolved{}) {
		return r, fmt.Errorf("look up %s: no address that clients could reach among %v", host, ips)
	}
	return r, nil
}

func steady(ips []netip.Addr, last netip.Addr) netip.Addr {
	switch {
	case len(ips) == 0:
		return netip.Addr{}
	case slices.Contains(ips, last):
		return last
	}
	return slices.MinFunc(ips, netip.Addr.Compare)
}

// plausible reports whether clients might reach an address: many machines think
// that their own name stands for a loopback address.
func (b *addressBook) plausible(ip netip.Addr) bool {
	if ip.Is6() && !b.ipv6 || ip.IsUnspecified() || ip.IsMulticast() || ip.IsLinkLocalUnicast() {
		return false
	}
	return !ip.IsLoopback() || !slices.ContainsFunc(b.locals, func(l netip.Addr) bool { return !l.IsLoopback() })
}

// askAll asks every server at once; the first answer counts.
func (b *addressBook) askAll(ctx context.Context, servers []string, local netip.Addr) (netip.Addr, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type answer struct {
		ext netip.Addr
		err error
	}
	answers := make(chan answer, len(servers))
	for _, s := range servers {
		go func() {
			ext, err := b.ask.reflexive(ctx, s, local)
			if err == nil && (!b.plausible(ext) || ext.Is4() != local.Is4()) {
				err = fmt.Errorf("address %s is not one that clients of %s could reach", ext, local)
			}
			if err != nil {
				err = fmt.Errorf("ask STUN server %s from %s: %w", s, local, err)
			}
			answers <- answer{ext, err}
		}()
	}
	var errs []error
	var ext netip.Addr
	for range servers { // all of them, so that no question outlives us
		a := <-answers
		if a.err == nil && !ext.IsValid() {
			ext = a.ext
			cancel()
		}
		errs = append(errs, a.err)
	}
	if ext.IsValid() {
		return ext, nil
	}
	return ext, errors.Join(errs...)
}

// keep asks again and again until ctx ends. changed is called after each change.
func (b *addressBook) keep(ctx context.Context, log *slog.Logger, met *metrics, changed func()) {
	if b.fixed() {
		return
	}
	report := func(was string) string {
		now := b.trouble()
		switch {
		case now == nil && was != "":
			log.Info("advertised addresses are known again")
		case now != nil && now.Error() != was:
			log.Warn("advertised addresses not found out: the last ones, or else the local ones, stay", "err", now)
		}
		if now == nil {
			met.lookups.WithLabelValues("ok").Inc()
			return ""
		}
		met.lookups.WithLabelValues("failed").Inc()
		return now.Error()
	}
	failed, failures := report(""), 0
	asked := time.Now()
	for {
		again := failed != "" && failures < retries
		every := hostEvery
		if again {
			every = retryEvery
			failures++
		} else if failed == "" {
			failures = 0
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(every):
		}
		servers := again || time.Since(asked) >= stunEvery
		if servers {
			asked = time.Now()
		}
		if b.discover(ctx, servers) {
			met.readvertised.Inc()
			log.Info("advertised addresses changed", "addresses", b.list())
			changed()
		}
		if ctx.Err() != nil {
			return
		}
		failed = report(failed)
	}
}

// list is the mapping as a log shows it: external/internal.
func (b *addressBook) list() []string {
	var out []string
	for _, l := range b.locals {
		if ext := b.advertised(l); ext.IsValid() {
			out = append(out, ext.String()+"/"+l.String())
		}
	}
	return out
}

// network is the asker that does ask.
type network struct{}

func (network) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
}

// reflexive asks from a socket of its own on the local address: which of its
// ports the answer names does not matter, a NAT that forwards media to us keeps
// the port. The kernel drops what does not come from the server.
func (network) reflexive(ctx context.Context, server string, local netip.Addr) (netip.Addr, error) {
	d := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(local, 0))}
	proto := "udp4"
	if local.Is6() {
		proto = "udp6"
	}
	c, err := d.DialContext(ctx, proto, server)
	if err != nil {
		return netip.Addr{}, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.SetReadDeadline(time.Unix(1, 0)) })()
	request, err := stun.Build(stun.BindingRequest, stun.TransactionID, stun.Fingerprint)
	if err != nil {
		return netip.Addr{}, err
	}
	for wait := firstRetransmit; ; wait *= 2 {
		if _, err := c.Write(request.Raw); err != nil {
			return netip.Addr{}, err
		}
		ip, err := awaitMapped(ctx, c, request.TransactionID, wait)
		switch {
		case err == nil:
			return ip, nil
		case ctx.Err() != nil:
			return ip, errors.New("no answer")
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return ip, err // nobody is there, says the network
		}
	}
}

// awaitMapped waits for the answer to a request, for so long or until ctx ends.
func awaitMapped(ctx context.Context, c net.Conn, id [stun.TransactionIDSize]byte, wait time.Duration) (netip.Addr, error) {
	buf := make([]byte, maxDatagram)
	_ = c.SetReadDeadline(time.Now().Add(wait))
	for ctx.Err() == nil { // after the deadline, so that the end of ctx is not lost
		n, err := c.Read(buf)
		if err != nil {
			return netip.Addr{}, err
		}
		if ip, ok := mappedAddress(buf[:n], id); ok {
			return ip, nil
		}
	}
	return netip.Addr{}, ctx.Err()
}

// mappedAddress reads the answer to a request of ours.
func mappedAddress(p []byte, id [stun.TransactionIDSize]byte) (netip.Addr, bool) {
	if !stun.IsMessage(p) {
		return netip.Addr{}, false
	}
	m := &stun.Message{Raw: p}
	if m.Decode() != nil || m.Type != stun.BindingSuccess || m.TransactionID != id {
		return netip.Addr{}, false
	}
	var x stun.XORMappedAddress
	if x.GetFrom(m) != nil {
		return netip.Addr{}, false
	}
	ip, ok := netip.AddrFromSlice(x.IP)
	return ip.Unmap(), ok
}
