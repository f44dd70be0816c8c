package gateway_test

import (
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A browserStats is what window.sallyport.stats() of the demo's page answers.
type browserStats struct {
	Path struct {
		ID             string
		CandidateType  string
		Protocol       string
		RelayProtocol  string
		TURNPort       int
		RemotePort     int
		RemoteProtocol string
	}
	Inbound []struct {
		Mid              string
		Kind             string
		SSRC             int64
		PacketsReceived  int
		PacketsLost      int
		TotalAudioEnergy float64
		FramesDecoded    int
	}
}

// A caller is one participant: a page with a profile of its own.
type caller struct {
	t    *testing.T
	rig  *browserRig
	name string
	ways string // its query, for messages

	closed bool
}

// call opens the page, joins the room over the path and waits for the media
// connection. The page is closed with the test.
func (rig *browserRig) call(t *testing.T, name, room, path string) *caller {
	t.Helper()
	c := rig.visit(t, browserCommand{Page: name}, url.Values{"name": {name}, "room": {room}, "path": {path}})
	c.click("#join-button")
	c.wait(`sallyport.state === 'connected'`)
	return c
}

func (rig *browserRig) visit(t *testing.T, open browserCommand, query url.Values) *caller {
	t.Helper()
	open.Do, open.URL = "open", rig.addrs.URL+"?"+query.Encode()
	rig.do(t, open, nil)
	c := &caller{t: t, rig: rig, name: open.Page, ways: query.Encode()}
	t.Cleanup(c.close)
	return c
}

// close checks that the page wrote no error to its console, and closes it. Only
// the first call does anything.
func (c *caller) close() {
	if c.closed {
		return
	}
	c.closed = true
	var problems []string
	c.rig.do(c.t, browserCommand{Do: "problems", Page: c.name}, &problems)
	for _, p := range problems {
		c.t.Errorf("%s (%s): console: %s", c.name, c.ways, p)
	}
	if c.t.Failed() {
		c.screenshot("failed-" + strings.ReplaceAll(c.t.Name(), "/", "-") + "-" + c.name)
	}
	c.rig.do(c.t, browserCommand{Do: "close", Page: c.name}, nil)
}

func (c *caller) click(selector string) {
	c.t.Helper()
	c.rig.do(c.t, browserCommand{Do: "click", Page: c.name, Selector: selector}, nil)
}

func (c *caller) wait(expression string) {
	c.t.Helper()
	c.rig.do(c.t, browserCommand{Do: "wait", Page: c.name, Value: expression, Timeout: 20_000}, nil)
}

func (c *caller) eval(expression string, value any) {
	c.t.Helper()
	c.rig.do(c.t, browserCommand{Do: "eval", Page: c.name, Value: expression}, value)
}

func (c *caller) screenshot(name string) {
	c.t.Helper()
	c.rig.do(c.t, browserCommand{Do: "screenshot", Page: c.name, Value: filepath.Join(c.rig.artifacts, name+".png")}, nil)
}

func (c *caller) stats() browserStats {
	c.t.Helper()
	var s browserStats
	c.eval(`sallyport.stats()`, &s)
	return s
}

// total sums what has arrived of one kind of media.
func (s browserStats) total(kind string) (packets, frames int) {
	for _, in := range s.Inbound {
		if in.Kind == kind {
			packets += in.PacketsReceived
			frames += in.FramesDecoded
		}
	}
	return packets, frames
}

// hear checks that all of them receive audio for five seconds: 250 packets of
// 20 ms in about that time, with sound in them, and hardly any lost.
func hear(t *testing.T, callers ...*caller) {
	t.Helper()
	began := make([]time.Time, len(callers))
	before := make([]browserStats, len(callers))
	for i, c := range callers {
		c.wait(`sallyport.media.some(m => m.type === 'voice')`)
		c.wait(`sallyport.stats().then(s => s.inbound.some(i => i.packetsReceived > 0))`)
		began[i], before[i] = time.Now(), c.stats()
	}
	for i, c := range callers {
		c.wait(fmt.Sprintf(`sallyport.stats().then(s => {
			const before = %s;
			return s.inbound.reduce((n, i) => n + (i.kind === 'audio' ? i.packetsReceived - (before[i.ssrc] || 0) : 0), 0) >= 250;
		})`, before[i].heard()))
		took := time.Since(began[i])
		packets, lost, energy := c.stats().since(before[i])
		if took < 4*time.Second || took > 20*time.Second {
			t.Errorf("%s: %d packets took %v, want about 5 s", c.name, packets, took)
		}
		if packets <= 150 || energy <= 0 || lost*50 >= packets {
			t.Errorf("%s: %d packets, %d lost, energy %g more", c.name, packets, lost, energy)
		}
	}
}

// heard is how many packets have come of each audio stream, as JSON by SSRC.
func (s browserStats) heard() string {
	packets := map[int64]int{}
	for _, in := range s.Inbound {
		if in.Kind == "audio" {
			packets[in.SSRC] = in.PacketsReceived
		}
	}
	b, _ := json.Marshal(packets) // numbers can always be marshalled
	return string(b)
}

// since is what has come of audio since before, stream by stream: one that has
// ended meanwhile is no longer in the statistics, with all that it had.
func (s browserStats) since(before browserStats) (packets, lost int, energy float64) {
	for _, in := range s.Inbound {
		if in.Kind != "audio" {
			continue
		}
		packets, lost, energy = packets+in.PacketsReceived, lost+in.PacketsLost, energy+in.TotalAudioEnergy
		for _, b := range before.Inbound {
			if b.Kind == "audio" && b.SSRC == in.SSRC {
				packets, lost, energy = packets-b.PacketsReceived, lost-b.PacketsLost, energy-b.TotalAudioEnergy
			}
		}
	}
	return packets, lost, energy
}

// wantPath is what getStats has to say when a path is in use.
type wantPath struct {
	id       string
	relayed  bool
	protocol string // between us and the SFU, or the relay and the SFU
	relay    string // relayProtocol
	turn     int    // port of the TURN server
	remote   []int  // ports of the SFU
}

func (c *caller) uses(want wantPath) {
	c.t.Helper()
	p := c.stats().Path
	direct := map[string]bool{"host": true, "prflx": true, "srflx": true}
	if p.ID != want.id || p.Protocol != want.protocol || p.RelayProtocol != want.relay || p.TURNPort != want.turn ||
		!slices.Contains(want.remote, p.RemotePort) || p.RemoteProtocol != want.protocol ||
		want.relayed != (p.CandidateType == "relay") || want.relayed == direct[p.CandidateType] {
		c.t.Errorf("%s is on %+v, want %+v", c.name, p, want)
	}
}

// TestBrowser is the product as people meet it: Chromium, the page, a call.
func TestBrowser(t *testing.T) {
	rig := startBrowserRig(t)
	t.Run("lobby", rig.testLobby)
	t.Run("warm", func(t *testing.T) { rig.call(t, "First", "warm", "turn-tls") })
	before := rig.load(t)

	for _, want := range rig.paths(t) {
		t.Run("path "+want.id, func(t *testing.T) { rig.testPath(t, want) })
	}
	t.Run("signalling over the data channel", rig.testChannelSignalling)
	t.Run("mute", rig.testMute)
	t.Run("interruption", rig.testInterruption)
	t.Run("screen", rig.testScreen)
	t.Run("camera", rig.testCamera)
	t.Run("latecomer", rig.testLatecomer)
	t.Run("everything is freed", func(t *testing.T) { rig.testFreed(t, before) })
}

func (rig *browserRig) paths(t *testing.T) []wantPath {
	t.Helper()
	port := func(address string) int {
		_, p, err := net.SplitHostPort(strings.TrimSuffix(strings.TrimPrefix(address, "https://"), "/"))
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.Atoi(p)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	tcp := []int{port(rig.addrs.MediaTCP)}
	udp := []int{port(rig.addrs.MediaUDP), port(rig.addrs.TURN)} // the SFU has both, and prefers none
	return []wantPath{
		{id: "auto", protocol: "udp", remote: udp},
		{id: "udp", protocol: "udp", remote: udp},
		{id: "tcp", protocol: "tcp", remote: tcp},
		{id: "turn-udp", relayed: true, protocol: "udp", relay: "udp", turn: port(rig.addrs.TURN), remote: udp},
		{id: "turn-tcp", relayed: true, protocol: "udp", relay: "tcp", turn: port(rig.addrs.URL), remote: udp},
		{id: "turn-tls", relayed: true, protocol: "udp", relay: "tls", turn: port(rig.addrs.URL), remote: udp},
	}
}

// testPath: two people on the same path hear each other.
func (rig *browserRig) testPath(t *testing.T, want wantPath) {
	a, b := rig.call(t, "Laptop", "path", want.id), rig.call(t, "Phone", "path", want.id)
	shot := want.id
	if want.id == "auto" {
		want.id = "udp" // the best one, when nothing is in the way
	}
	a.click("#b-tone")
	b.click("#b-tone")
	hear(t, a, b)
	for _, c := range []*caller{a, b} {
		c.uses(want)
		c.wait(`sallyport.participants.length === 2 && sallyport.participants.every(p => !p.muted)`)
		c.wait(`sallyport.participants.every(p => p.voice)`) // VAD of the SFU
		c.wait(`document.querySelectorAll('.tile.speaking').length === 2`)
		rig.comesThroughProxy(t, c)
	}
	a.screenshot("path-" + shot)
}

// comesThroughProxy: page and signalling came over TLS from the gateway, which
// counts the WebSocket.
func (rig *browserRig) comesThroughProxy(t *testing.T, c *caller) {
	t.Helper()
	var page struct{ Origin, Protocol string }
	c.eval(`({origin: location.origin + '/', protocol: performance.getEntriesByType('navigation')[0].nextHopProtocol})`, &page)
	if page.Origin != rig.addrs.URL || page.Protocol != "h2" {
		t.Errorf("the page came from %s over %s", page.Origin, page.Protocol)
	}
	var status struct{ Websockets int }
	if err := json.Unmarshal([]byte(rig.admin(t, "/status")), &status); err != nil || status.Websockets != 2 {
		t.Errorf("the proxy carries %d WebSockets, want 2 (%v)", status.Websockets, err)
	}
}
