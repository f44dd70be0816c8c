package peer

import (
	"errors"
	"flag"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPathIsAFlag(t *testing.T) {
	var p Path
	var _ flag.Value = &p
	for i, name := range pathNames {
		if err := p.Set(name); err != nil || p != Path(i) || p.String() != name {
			t.Errorf("Set(%q): %v, path %v", name, err, p)
		}
	}
	if err := p.Set("tunnel"); err == nil || !strings.Contains(err.Error(), "turn-tls") {
		t.Errorf("Set of an unknown name: %v, want an error that lists the names", err)
	}
}

func TestServersOfPath(t *testing.T) {
	all := []ICEServer{
		{URLs: []string{"stun:h:3478"}},
		{URLs: []string{"turn:h:443", "turn:h:443?transport=tcp", "turns:h:443?transport=tcp"}, Username: "u", Credential: "c"},
	}
	one := func(u string) []ICEServer {
		return []ICEServer{{URLs: []string{u}, Username: "u", Credential: "c"}}
	}
	for _, x := range []struct {
		path Path
		want []ICEServer
	}{
		{Auto, all}, {UDP, nil}, {TCP, nil},
		{TURNUDP, one("turn:h:443")},
		{TURNTCP, one("turn:h:443?transport=tcp")},
		{TURNTLS, one("turns:h:443?transport=tcp")},
	} {
		got, err := x.path.servers(all)
		if diff := cmp.Diff(x.want, got); err != nil || diff != "" {
			t.Errorf("%v: %v\n%s", x.path, err, diff)
		}
	}
	if _, err := TURNTLS.servers(all[:1]); !errors.Is(err, errNoServer) {
		t.Errorf("turn-tls without a turns URL: %v, want errNoServer", err)
	}
	if len(all[1].URLs) != 3 || all[1].URLs[0] != "turn:h:443" {
		t.Errorf("the caller's list was changed: %v", all)
	}
}

const (
	udpCandidate = "candidate:1 1 udp 2130706431 198.51.100.7 8443 typ host ufrag x"
	tcpCandidate = "candidate:2 1 TCP 1671430143 198.51.100.7 443 typ host tcptype passive"
)

func TestFilterAllows(t *testing.T) {
	for _, x := range []struct {
		filter   filter
		udp, tcp bool
	}{
		{filter{}, true, true},
		{filter{path: UDP}, true, false},
		{filter{path: TCP}, false, true},
		{filter{path: TURNUDP}, true, false},
		{filter{path: TURNTLS}, true, false},
		{filter{port: 443}, false, true},
		{filter{path: UDP, port: 443}, false, false},
		{filter{path: UDP}.ours(), true, true},
		{filter{path: TURNUDP, port: 443}.ours(), true, true},
		{filter{path: UDP, port: 443}.ours(), false, false},
	} {
		if udp, tcp := x.filter.allows(udpCandidate), x.filter.allows(tcpCandidate); udp != x.udp || tcp != x.tcp {
			t.Errorf("%+v allows udp %v and tcp %v, want %v and %v", x.filter, udp, tcp, x.udp, x.tcp)
		}
	}
	for _, bad := range []string{"", "candidate:", "candidate:1 1 udp 1 198.51.100.7"} {
		if (filter{}).allows(bad) {
			t.Errorf("%q is allowed", bad)
		}
	}
}

func TestFilterSDP(t *testing.T) {
	sdp := "v=0\r\na=" + udpCandidate + "\r\na=mid:0\r\na=" + tcpCandidate + "\r\n"
	if got := (filter{}).sdp(sdp); got != sdp {
		t.Errorf("no filter changed the description: %q", got)
	}
	want := "v=0\r\na=mid:0\r\na=" + tcpCandidate + "\r\n"
	if got := (filter{path: TCP}).sdp(sdp); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
