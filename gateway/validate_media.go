package gateway

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"sallyport/sfu"
	"sallyport/turn"
)

func (c Config) validateTURN(ps *problems) {
	t := c.TURN
	if !t.Enabled {
		return
	}
	if t.SecretFile == "" {
		ps.add("turn.secret_file", "missing: TURN needs the secret of the Calls plugin (\"TURN Static Auth Secret\"); write its file here, or set turn.enabled: false")
	}
	if t.PreviousSecretFile != "" && t.PreviousSecretFile == t.SecretFile {
		ps.add("turn.previous_secret_file", "is the same file as turn.secret_file")
	}
	if len(t.Realm) > turn.MaxRealm || strings.ContainsFunc(t.Realm, notPrintable) {
		ps.add("turn.realm", "is longer than %d bytes or has characters other than printable ASCII", turn.MaxRealm)
	}
	if len(t.RelayTo) == 0 {
		ps.add("turn.relay_to", "missing: write [sfu], or set turn.enabled: false")
	}
	for i, entry := range t.RelayTo {
		key := fmt.Sprintf("turn.relay_to[%d]", i)
		if entry == RelayToSFU && c.SFU.Mode == ModeOff {
			ps.add(key, "sfu.mode is off, so there is no SFU of ours: name the media server as host:port")
		} else if turn.CheckRelayTo(entry) != nil {
			ps.add(key, "%q is not sfu, host:port or CIDR:port", entry)
		}
	}
	if t.MaxAllocations <= 0 {
		ps.add("turn.max_allocations", "%d is not positive: use turn.enabled: false to have none", t.MaxAllocations)
	}
	if t.UserAllocations <= 0 {
		ps.add("turn.user_allocations", "%d is not positive", t.UserAllocations)
	} else if t.MaxAllocations > 0 && t.UserAllocations > t.MaxAllocations {
		ps.add("turn.user_allocations", "%d is more than turn.max_allocations (%d)", t.UserAllocations, t.MaxAllocations)
	}
	if t.AllocationBitrate < 0 {
		ps.add("turn.allocation_bitrate", "%d is negative: use 0 for no limit", t.AllocationBitrate)
	}
}

func (c Config) validateSFU(ps *problems) {
	switch c.SFU.Mode {
	case ModeRTCD, ModeOff:
	case ModeForward:
		ps.add("sfu.mode", "forward is not yet supported: use rtcd or off")
	default:
		ps.add("sfu.mode", "%q is not one of rtcd, forward, off", c.SFU.Mode)
	}
	if c.SFU.ForwardTo != "" && c.SFU.Mode != ModeForward {
		ps.add("sfu.forward_to", "only used with sfu.mode: forward, which is not yet supported")
	}
	if c.SFU.Mode != ModeRTCD {
		return
	}
	if c.SFU.AudioLastN < 0 {
		ps.add("sfu.audio_last_n", "%d is negative: use 0 to let everybody be heard", c.SFU.AudioLastN)
	}
	if c.SFU.UDP == "" {
		ps.add("sfu.udp", "missing: media needs a UDP port, like \":8443\"")
	}
	checkListen(ps, "sfu.udp", c.SFU.UDP)
	checkListen(ps, "sfu.tcp", c.SFU.TCP)
	faults, mixed := sfu.CheckAdvertise(c.SFU.Advertise, c.SFU.IPv6)
	for i, err := range faults {
		if err != nil {
			ps.add(fmt.Sprintf("sfu.advertise[%d]", i), "%v", err)
		}
	}
	if mixed {
		ps.add("sfu.advertise", "mixes addresses, external/internal pairs and STUN servers: use one form")
	}
}

func (c Config) validateAPI(ps *problems) {
	if c.SFU.Mode != ModeRTCD {
		return
	}
	api := c.SFU.API
	if api.Listen == "" {
		ps.add("sfu.api.listen", "missing: the Calls plugin connects here, as on 127.0.0.1:8045")
	}
	checkListen(ps, "sfu.api.listen", api.Listen)
	if api.SelfRegistration && api.Store == "" {
		ps.add("sfu.api.store", "missing: sfu.api.self_registration needs a directory to keep the clients in")
	}
	first := map[string]int{}
	for i, client := range api.Clients {
		key := fmt.Sprintf("sfu.api.clients[%d]", i)
		j, twice := first[client.ID]
		switch {
		case client.ID == "":
			ps.add(key+".id", "missing")
		case len(client.ID) > 64:
			ps.add(key+".id", "is longer than 64 bytes")
		case strings.Contains(client.ID, ":") || strings.ContainsFunc(client.ID, notPrintable):
			ps.add(key+".id", "%q has a colon or characters other than printable ASCII", client.ID)
		case twice:
			ps.add(key+".id", "%q is already the id of sfu.api.clients[%d]", client.ID, j)
		}
		if !twice {
			first[client.ID] = i
		}
		if client.KeyFile == "" {
			ps.add(key+".key_file", "missing: write the file that holds the client's key")
		}
	}
}

// listener is an address one can bind: "[host]:port". The zero IP stands for
// all addresses.
type listener struct {
	ip   netip.Addr
	port string
}

// parseListen parses the address of a listener. Host names other than
// localhost are refused: which address they stand for may change.
func parseListen(s string) (listener, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return listener{}, errors.New("is not [address]:port, like \":443\"")
	}
	if port != "0" && !isPort(port) {
		return listener{}, fmt.Errorf("has port %s, which is not between 0 and 65535", port)
	}
	switch host {
	case "":
		return listener{port: port}, nil
	case "localhost":
		return listener{ip: netip.AddrFrom4([4]byte{127, 0, 0, 1}), port: port}, nil
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return listener{}, fmt.Errorf("has %q in the place of an IP address (leave it out to listen on all)", host)
	}
	if ip.IsUnspecified() {
		return listener{port: port}, nil
	}
	return listener{ip: ip.Unmap(), port: port}, nil
}

// private reports whether only this host or its local network can connect.
func (l listener) private() bool {
	return l.ip.IsLoopback() || l.ip.IsPrivate() || l.ip.IsLinkLocalUnicast()
}

// overlaps reports whether l and m cannot both be bound.
func (l listener) overlaps(m listener) bool {
	if l.port != m.port || l.port == "0" {
		return false
	}
	return !l.ip.IsValid() || !m.ip.IsValid() || l.ip == m.ip
}

func checkListen(ps *problems, key, s string) {
	if s == "" {
		return
	}
	if _, err := parseListen(s); err != nil {
		ps.add(key, "%q %v", s, err)
	}
}

// validateShared finds two listeners on one address.
func (c Config) validateShared(ps *problems) {
	type named struct{ key, addr string }
	tcp := []named{{"listen.https", c.Listen.HTTPS}, {"listen.http", c.Listen.HTTP}}
	udp := []named{{"listen.udp", c.Listen.UDP}}
	if c.SFU.Mode == ModeRTCD {
		tcp = append(tcp, named{"sfu.tcp", c.SFU.TCP}, named{"sfu.api.listen", c.SFU.API.Listen})
		udp = append(udp, named{"sfu.udp", c.SFU.UDP})
	}
	tcp = append(tcp, named{"admin.listen", c.Admin.Listen})
	for _, all := range [][]named{tcp, udp} {
		for i, later := range all {
			for _, earlier := range all[:i] {
				l, errL := parseListen(later.addr)
				e, errE := parseListen(earlier.addr)
				if errL == nil && errE == nil && l.overlaps(e) {
					ps.add(later.key, "%q is taken by %s (%q)", later.addr, earlier.key, earlier.addr)
				}
			}
		}
	}
}

func notPrintable(r rune) bool { return r < ' ' || r > '~' }
