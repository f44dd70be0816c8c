package gateway

import (
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// TestUpgradeNodeByNode does what docs/cluster.md says to three nodes, one after
// the other, while requests of all kinds come and WebSockets are open: nothing
// fails, and every WebSocket that ends was told to come back.
func TestUpgradeNodeByNode(t *testing.T) {
	nodes := []*mattermost{startMattermost(t), startMattermost(t), startMattermost(t)}
	rig := startProxy(t, func(c *Config) {
		c.Upstream = []string{nodes[0].url(), nodes[1].url(), nodes[2].url()}
		c.Drain.WebsocketSpread = 100 * time.Millisecond
	})
	rig.watched(t)
	stop := make(chan struct{})
	var wait sync.WaitGroup
	var good, reconnects atomic.Int64
	for i := range 4 {
		wait.Go(func() {
			method := []string{http.MethodGet, http.MethodPost}[i/2]
			for running(stop) {
				resp, err := []*http.Client{rig.h1, rig.h2}[i%2].Do(request(t, method, rig.url("/plugins/mirror/"), map[string]string{http.MethodPost: "once"}[method]))
				if err != nil {
					t.Errorf("%s: %v", method, err)
					return
				}
				if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
					t.Errorf("%s: %d %v", method, resp.StatusCode, err)
				}
				_ = resp.Body.Close()
				good.Add(1)
			}
		})
	}
	for range 9 {
		wait.Go(func() {
			for running(stop) {
				c, err := rig.tryDial(t, "/api/v4/websocket")
				if err != nil {
					t.Errorf("open WebSocket: %v", err)
					return
				}
				reconnects.Add(1)
				ended := make(chan error, 1)
				go func() {
					_, _, err := c.Read(t.Context())
					ended <- err
				}()
				select {
				case err := <-ended:
					if websocket.CloseStatus(err) != websocket.StatusServiceRestart {
						t.Errorf("WebSocket ended with %v", err)
					}
				case <-stop:
					_ = c.CloseNow()
					<-ended
				}
			}
		})
	}
	ups := rig.settings.Load().pool.upstreams
	eventually(t, "all are connected", func() bool { return reconnects.Load() == 9 })
	for i, node := range nodes {
		if err := rig.setDrained(node.url(), true, false); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is empty", func() bool { return ups[i].busy.Load()+ups[i].open.Load() == 0 })
		node.stop()
		before := good.Load()
		eventually(t, "the others serve", func() bool { return good.Load() > before+20 })
		node.start()
		if err := rig.setDrained(node.url(), false, false); err != nil {
			t.Fatal(err)
		}
		served := metric(rig.metrics.answers.WithLabelValues(ups[i].name, "2xx"))
		eventually(t, "it serves again", func() bool {
			return metric(rig.metrics.answers.WithLabelValues(ups[i].name, "2xx")) > served+5
		})
	}
	close(stop)
	wait.Wait()
	t.Logf("%d requests, %d WebSockets", good.Load(), reconnects.Load())
}

func running(stop <-chan struct{}) bool {
	select {
	case <-stop:
		return false
	default:
		return true
	}
}
