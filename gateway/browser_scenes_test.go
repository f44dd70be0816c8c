package gateway_test

import (
	"net/url"
	"strings"
	"testing"
	"time"
)

// testLobby: the page in both colour schemes, and with a name it cannot use.
func (rig *browserRig) testLobby(t *testing.T) {
	for _, dark := range []bool{false, true} {
		c := rig.visit(t, browserCommand{Page: "lobby", Dark: dark}, url.Values{"name": {"Laptop"}})
		c.wait(`document.querySelectorAll('input[name=path]').length === 6 && sallyport.state === 'lobby'`)
		if dark {
			c.screenshot("lobby-dark")
		} else {
			c.screenshot("lobby")
			c.rig.do(t, browserCommand{Do: "fill", Page: c.name, Selector: "#name", Value: "a\u202eb"}, nil)
			c.click("#join-button")
			c.wait(`document.getElementById('lobby-error').textContent.includes('cannot be shown')`)
		}
		c.close()
	}
}

// testChannelSignalling: the same call with offers on the data channel.
func (rig *browserRig) testChannelSignalling(t *testing.T) {
	join := func(name string) *caller {
		c := rig.visit(t, browserCommand{Page: name}, url.Values{"name": {name}, "room": {"dc"}, "dc": {"1"}})
		c.click("#join-button")
		c.wait(`sallyport.state === 'connected'`)
		return c
	}
	a, b := join("Laptop"), join("Phone")
	a.click("#b-mic") // Chromium's fake microphone beeps
	b.click("#b-tone")
	hear(t, a, b)
	b.click("#b-screen")
	a.seesScreen()
}

// offers is what a mute must not change.
type offers struct {
	Sent, Received int
	State          string
}

func (c *caller) offers() (o offers) {
	c.t.Helper()
	c.eval(`({...sallyport.offers, state: sallyport.signalingState})`, &o)
	return o
}

func (c *caller) audioPackets() int {
	c.t.Helper()
	n, _ := c.stats().total("audio")
	return n
}

// testMute: packets stop and come back, on the same stream, without an offer.
func (rig *browserRig) testMute(t *testing.T) {
	a, b := rig.call(t, "Laptop", "mute", "auto"), rig.call(t, "Phone", "mute", "auto")
	a.click("#b-tone")
	hear(t, b)
	sender, receiver := a.offers(), b.offers()
	ssrc := b.stats().Inbound[0].SSRC

	a.click("#b-tone")
	b.wait(`sallyport.participants.some(p => p.name === 'Laptop' && p.muted)`)
	b.wait(`document.querySelectorAll('.tile.muted').length === 2`)
	b.wait(`new Promise(done => { // nothing for a whole second
		const count = () => sallyport.stats().then(s => s.inbound[0].packetsReceived);
		count().then(before => setTimeout(() => count().then(after => done(after === before)), 1000));
	})`)
	muted := b.audioPackets()
	if a.offers() != sender || b.offers() != receiver {
		t.Errorf("mute was negotiated: %+v → %+v, %+v → %+v", sender, a.offers(), receiver, b.offers())
	}

	a.click("#b-tone")
	hear(t, b)
	if got := b.stats().Inbound; len(got) != 1 || got[0].SSRC != ssrc || got[0].PacketsReceived <= muted {
		t.Errorf("unmute came on another stream: %+v, was SSRC %d", got, ssrc)
	}
	if a.offers() != sender || b.offers() != receiver {
		t.Errorf("unmute was negotiated: %+v → %+v, %+v → %+v", sender, a.offers(), receiver, b.offers())
	}
	if sender.State != "stable" || receiver.State != "stable" {
		t.Errorf("signalling state: %+v, %+v", sender, receiver)
	}
}

// testInterruption: the signalling WebSocket breaks and comes back; the media
// does not notice, and nobody sees the participant leave.
func (rig *browserRig) testInterruption(t *testing.T) {
	a, b := rig.call(t, "Laptop", "interruption", "auto"), rig.call(t, "Phone", "interruption", "auto")
	a.click("#b-tone")
	b.wait(`sallyport.stats().then(s => s.inbound.some(i => i.packetsReceived > 0))`)
	var session, after string
	a.eval(`sallyport.session`, &session)
	rig.do(t, browserCommand{Do: "interrupt", Page: a.name}, nil)
	a.click("#b-tone") // muted now; said over the new connection
	b.wait(`sallyport.participants.some(p => p.name === 'Laptop' && p.muted)`)
	a.wait(`document.getElementById('notice').hidden`)
	a.eval(`sallyport.session`, &after)
	if after != session {
		t.Errorf("came back as another session: %s, was %s", after, session)
	}
	a.click("#b-tone")
	hear(t, b)
}

// plays waits until a video element shows pictures that move: three are
// enough, a tab in the background draws only one a second.
func (c *caller) plays(selector string) {
	c.t.Helper()
	c.wait(`(() => { const v = document.querySelector('` + selector + `'); return v && v.videoWidth > 0 && v.getVideoPlaybackQuality().totalVideoFrames > 2; })()`)
}

func (c *caller) seesScreen() {
	c.t.Helper()
	c.wait(`sallyport.media.some(m => m.type === 'screen')`)
	c.plays("#screen-video")
}

// testScreen: a share appears at the other participant, and disappears.
func (rig *browserRig) testScreen(t *testing.T) {
	a, b := rig.call(t, "Laptop", "screen", "auto"), rig.call(t, "Phone", "screen", "turn-tls")
	for range 2 { // the second time on other m-lines
		a.click("#b-screen")
		b.seesScreen()
		b.wait(`sallyport.participants.some(p => p.name === 'Laptop' && p.screen)`)
		b.screenshot("screen")
		a.click("#b-screen")
		b.wait(`document.getElementById('featured').hidden && !sallyport.media.some(m => m.type.startsWith('screen'))`)
		b.wait(`!sallyport.participants.some(p => p.screen)`)
	}
	b.click("#b-screen") // and the other way round
	a.seesScreen()
	a.click("#b-screen") // refused: one sharer in a room
	a.wait(`document.getElementById('notice').textContent.includes('Phone is sharing already')`)
	a.wait(`document.getElementById('b-screen').ariaPressed === 'false'`)
	b.click("#b-leave") // the share ends with its sharer
	a.wait(`document.getElementById('featured').hidden && sallyport.media.length === 0 && sallyport.participants.length === 1`)
}

// testCamera: likewise; switched on again, the camera needs no negotiation.
func (rig *browserRig) testCamera(t *testing.T) {
	a, b := rig.call(t, "Laptop", "camera", "auto"), rig.call(t, "Phone", "camera", "auto")
	tile := `.tile:not(.self) video`
	a.click("#b-camera")
	b.wait(`sallyport.media.some(m => m.type === 'video')`)
	b.plays(tile)
	sender, receiver := a.offers(), b.offers()

	a.click("#b-camera")
	b.wait(`!document.querySelector('` + tile + `') && !sallyport.participants.some(p => p.video)`)
	_, frames := b.stats().total("video")
	a.click("#b-camera")
	b.plays(tile)
	if _, now := b.stats().total("video"); now <= frames {
		t.Errorf("no frame was decoded after the camera came back: %d, then %d", frames, now)
	}
	if a.offers() != sender || b.offers() != receiver {
		t.Errorf("the camera was negotiated again: %+v → %+v, %+v → %+v", sender, a.offers(), receiver, b.offers())
	}
}

// testLatecomer: who joins last gets everything that goes on, and a leaver's
// share of it goes away.
func (rig *browserRig) testLatecomer(t *testing.T) {
	a, b := rig.call(t, "Office laptop", "Weekly", "auto"), rig.call(t, "Phone", "Weekly", "turn-udp")
	a.click("#b-tone")
	a.click("#b-camera")
	b.click("#b-mic")
	b.click("#b-camera")
	a.plays(`.tile:not(.self) video`)
	b.plays(`.tile:not(.self) video`)
	a.click("#b-screen")
	b.seesScreen()

	c := rig.call(t, "Guest behind a firewall", "Weekly", "turn-tls")
	c.wait(`sallyport.media.map(m => m.type).sort().join() === 'screen,screen-audio,video,video,voice,voice'`)
	c.seesScreen()
	c.wait(`document.querySelectorAll('.tile:not(.self) video').length === 2 &&
		[...document.querySelectorAll('.tile video')].every(v => v.videoWidth > 0)`)
	c.wait(`sallyport.stats().then(s => {
		const voices = sallyport.media.filter(m => m.type === 'voice').map(m => m.mid);
		return s.inbound.filter(i => voices.includes(i.mid) && i.packetsReceived > 50 && i.totalAudioEnergy > 0).length === 2;
	})`)
	c.wait(`sallyport.stats().then(s => s.inbound.filter(i => i.kind === 'video' && i.framesDecoded > 2).length === 3)`)
	c.wait(`document.querySelectorAll('.tile.speaking').length === 2`)
	c.screenshot("call")

	a.click("#b-screen")
	a.click("#b-leave")
	for _, left := range []*caller{b, c} {
		left.wait(`sallyport.participants.length === 2 && document.getElementById('featured').hidden`)
		left.wait(`!sallyport.media.some(m => m.type.startsWith('screen'))`)
	}
	hear(t, c) // the one who stayed
	c.screenshot("call-two")
}

// testFreed: with everybody gone, the server is as before.
func (rig *browserRig) testFreed(t *testing.T, before serverLoad) {
	var now serverLoad
	deadline := time.Now().Add(40 * time.Second)
	for {
		now = rig.load(t)
		if now.media <= before.media && now.heap <= before.heap+before.heap/4+1<<20 {
			break
		}
		if time.Now().After(deadline) {
			t.Errorf("before %+v, now %+v\n%s", before, now, rig.admin(t, "/debug/pprof/goroutine?debug=1"))
			break
		}
		time.Sleep(500 * time.Millisecond) // between two looks
	}
	t.Logf("before %+v, now %+v", before, now)
	if status := rig.admin(t, "/status"); !strings.Contains(status, `"sessions": 0`) || !strings.Contains(status, `"websockets": 0`) {
		t.Errorf("status says %s", status)
	}
}
