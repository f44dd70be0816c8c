package gateway

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/sfu/rtcd"
)

// The secrets of a test gateway.
const (
	testTURNSecret = "a secret of the TURN test server"
	testClientID   = "mattermost"
	testClientKey  = "the key of the Calls plugin in these tests"
)

// A testGateway is a running Gateway.
type testGateway struct {
	*Gateway
	mm  *mattermost // behind it
	log *logLines

	cancel context.CancelFunc // stops it at once
	wait   func() error       // what Run returned; waits for it
}

// startGateway runs the whole product on free ports of 127.0.0.1, with a
// self-signed certificate and a stand-in for Mattermost, until the test ends.
// edit, if not nil, changes the configuration first.
func startGateway(t *testing.T, edit func(*Config)) *testGateway {
	t.Helper()
	return startGatewayWith(t, edit, nil)
}

func startGatewayWith(t *testing.T, edit func(*Config), options func(*Options)) *testGateway {
	t.Helper()
	tg := &testGateway{mm: startMattermost(t), log: &logLines{}}
	cfg, o := testConfig(tg.mm), tg.options()
	if edit != nil {
		edit(&cfg)
	}
	if options != nil {
		options(&o)
	}
	g, err := New(cfg, o)
	if err != nil {
		t.Fatal(err)
	}
	tg.Gateway = g
	ctx, cancel := context.WithCancel(context.Background())
	tg.cancel = cancel
	var result error
	done := make(chan struct{})
	go func() {
		defer close(done)
		result = g.Run(ctx)
	}()
	tg.wait = func() error {
		select {
		case <-done:
			return result
		case <-time.After(2 * time.Minute):
			return errors.New("Run does not return")
		}
	}
	var once sync.Once
	t.Cleanup(func() {
		once.Do(cancel)
		if err := tg.wait(); err != nil {
			t.Errorf("Run: %v", err)
		}
		if t.Failed() {
			t.Logf("log of the gateway:\n%s", strings.Join(tg.log.with(""), ""))
		}
	})
	eventually(t, "gateway is ready", g.ready)
	return tg
}

// testConfig is a valid configuration on free ports.
func testConfig(mm *mattermost) Config {
	cfg := Default()
	cfg.Domain = "localhost"
	cfg.Upstream = []string{mm.url()}
	cfg.Listen = Listen{HTTPS: "127.0.0.1:0", HTTP: "127.0.0.1:0", UDP: "127.0.0.1:0"}
	cfg.TLS.Source = SourceSelfSigned
	cfg.TLS.HSTS = 0
	cfg.Proxy.Hold = 0
	cfg.TURN.SecretFile = "turn-secret"
	cfg.SFU.UDP, cfg.SFU.TCP = "127.0.0.1:0", "127.0.0.1:0"
	cfg.SFU.API.Listen = "127.0.0.1:0"
	cfg.SFU.API.Clients = []rtcd.Client{{ID: testClientID, KeyFile: "client-key"}}
	cfg.SFU.API.Store = ""
	cfg.Proxy.Spool.Dir = ""
	cfg.Admin.Listen = "127.0.0.1:0"
	cfg.Drain = Drain{Timeout: 30 * time.Second}
	return cfg
}

// options are those of a test gateway: its secrets exist in memory only.
func (tg *testGateway) options() Options {
	files := map[string]string{"turn-secret": testTURNSecret + "\n", "client-key": testClientKey + "\n"}
	return Options{
		Logger:  slog.New(slog.NewTextHandler(tg.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Level:   new(slog.LevelVar),
		Version: rtcd.Version{Number: "0.0.0-test"},
		ReadFile: func(name string) ([]byte, error) {
			content, ok := files[name]
			if !ok {
				return nil, os.ErrNotExist
			}
			return []byte(content), nil
		},
	}
}

// noLeak runs f and fails if more goroutines live afterwards than before.
func noLeak(t *testing.T, f func()) {
	t.Helper()
	before := runtime.NumGoroutine()
	f()
	deadline := time.Now().Add(45 * time.Second)
	for runtime.NumGoroutine() > before {
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<20)
			t.Fatalf("%d goroutines before, %d after:\n%s", before, runtime.NumGoroutine(), buf[:runtime.Stack(buf, true)])
		}
		time.Sleep(10 * time.Millisecond)
	}
}
