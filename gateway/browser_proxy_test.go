package gateway_test

import (
	"os"
	"testing"
)

// TestNatlabBrowser: Chromium sits where nothing leads out but an HTTP proxy, which
// lets CONNECT through to port 443 and wants a login. The page comes that way, and
// so does the call, once the page has brought the login.
func TestNatlabBrowser(t *testing.T) {
	besideOthers(t)
	browserPrograms(t)
	needPrograms(t, "ip")
	if os.Getenv(inNamespace) == "" {
		rerunInNamespace(t)
		return
	}
	if err := filters(t); err != nil {
		t.Skipf("SKIPPED, NOT TESTED: Chromium behind a proxy: %v", err)
	}
	rig := &browserRig{near: newElsewhere(t), far: newElsewhere(t)}
	must(t, rig.near.do(func() error { return ip("link set lo up") }))
	squid := startSquid(t, rig.near, rig.far)
	rig.proxy = &browserProxy{Server: "http://" + squid.at(squidLogin).address, Username: squidUser, Password: squidPassword}
	rig.demo = []string{"-listen", squid.server.String() + ":443", "-api", "127.0.0.1:0", "-admin", "127.0.0.1:0"}
	rig.start(t)
	a, b := rig.call(t, "Laptop", "proxy", "turn-tls"), rig.call(t, "Phone", "proxy", "auto")
	a.click("#b-tone")
	b.click("#b-tone")
	hear(t, a, b)
	a.uses(wantPath{id: "turn-tls", relayed: true, protocol: "udp", relay: "tls", turn: 443, remote: []int{443, 8443}})
	if p := b.stats().Path; p.CandidateType != "relay" || p.RelayProtocol == "udp" || p.TURNPort != 443 {
		t.Errorf("left alone, Chromium is on %+v, want TURN through the proxy", p)
	}
}
