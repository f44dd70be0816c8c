package peer

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
)

// A Path is one of the roads media may take. The zero Path is Auto.
type Path uint8

// The paths, from the free choice of ICE to the narrowest door.
const (
	Auto    Path = iota // whatever ICE finds best
	UDP                 // straight to the SFU's UDP port
	TCP                 // straight to the SFU's TCP port
	TURNUDP             // through a turn: server over UDP
	TURNTCP             // through a turn: server over TCP
	TURNTLS             // through a turns: server over TLS
)

var pathNames = [...]string{"auto", "udp", "tcp", "turn-udp", "turn-tcp", "turn-tls"}

// String returns the name that Set accepts.
func (p Path) String() string {
	if int(p) < len(pathNames) {
		return pathNames[p]
	}
	return "path " + strconv.Itoa(int(p))
}

// Set parses the name of a path, so that a *Path is a flag.Value.
func (p *Path) Set(name string) error {
	i := slices.Index(pathNames[:], name)
	if i < 0 {
		return fmt.Errorf("unknown path %q: want one of %s", name, strings.Join(pathNames[:], ", "))
	}
	*p = Path(i)
	return nil
}

func (p Path) relayed() bool { return p >= TURNUDP }

// An ICEServer is a STUN or TURN server as browsers know it.
type ICEServer struct {
	URLs                 []string `json:"urls"`
	Username, Credential string
}

var errNoServer = errors.New("no ICE server for this path")

// servers returns what of all is on path p: everything on Auto, nothing on the
// direct paths.
func (p Path) servers(all []ICEServer) ([]ICEServer, error) {
	if p == Auto {
		return all, nil
	}
	if !p.relayed() {
		return nil, nil
	}
	var fit []ICEServer
	for _, s := range all {
		s.URLs = slices.DeleteFunc(slices.Clone(s.URLs), func(u string) bool { return turnPath(u) != p })
		if len(s.URLs) > 0 {
			fit = append(fit, s)
		}
	}
	if len(fit) == 0 {
		return nil, fmt.Errorf("choose ICE servers for %s: %w", p, errNoServer)
	}
	return fit, nil
}

// turnPath returns the path through the server of a URL (RFC 7065), or Auto
// for one that is none.
func turnPath(u string) Path {
	rest, query, _ := strings.Cut(u, "?")
	scheme, _, _ := strings.Cut(rest, ":")
	tcp := query == "transport=tcp"
	switch {
	case scheme == "turns" && (tcp || query == ""):
		return TURNTLS
	case scheme == "turn" && tcp:
		return TURNTCP
	case scheme == "turn":
		return TURNUDP
	}
	return Auto
}

// A filter decides which candidates of the server a peer gets to know.
type filter struct {
	path Path
	port uint16 // 0 = any
	none bool   // none at all
	ipv6 bool   // IPv6 only
}

// ours returns the filter of the peer's own candidates. A server that knows them
// finds the peer from a port the peer did not choose, so a peer that insists on
// a port keeps them to itself and is found by its own checks.
func (f filter) ours() filter { return filter{none: f.port != 0 && !f.path.relayed()} }

// allows reports whether an SDP candidate attribute's value is on the path. A
// relay reaches UDP candidates only (RFC 8656), as does the UDP path.
func (f filter) allows(candidate string) bool {
	fields := strings.Fields(strings.TrimPrefix(candidate, "candidate:"))
	if len(fields) < 6 || f.none {
		return false
	}
	if f.port != 0 && fields[5] != strconv.Itoa(int(f.port)) {
		return false
	}
	if f.ipv6 && !strings.Contains(fields[4], ":") {
		return false
	}
	tcp := strings.EqualFold(fields[2], "tcp")
	return f.path == Auto || tcp == (f.path == TCP)
}

// sdp removes from a description the candidates that are not allowed.
func (f filter) sdp(description string) string {
	if f == (filter{}) {
		return description
	}
	var kept strings.Builder
	for line := range strings.Lines(description) {
		if c, is := strings.CutPrefix(line, "a=candidate:"); is && !f.allows(c) {
			continue
		}
		kept.WriteString(line)
	}
	return kept.String()
}

// dialer makes a function what pion/webrtc takes for a proxy.
type dialer func(network, address string) (net.Conn, error)

func (d dialer) Dial(network, address string) (net.Conn, error) { return d(network, address) }
