package main

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport/gateway"
)

func TestReload(t *testing.T) {
	name := filepath.Join(t.TempDir(), "c.yaml")
	const good = "domain: chat.example.com\nturn: {enabled: false}\n"
	for _, test := range []struct {
		name, file string
		restart    []gateway.Change
		err        error
		calls      int
		failed     int
		log        string
	}{
		{"good", good, nil, nil, 1, 0, "level=INFO msg=\"configuration reloaded\" applied=\"log.level: info -> debug\"\n"},
		{"restart", good, []gateway.Change{{Key: "listen.https", Old: ":443", New: ":444"}, {Key: "turn.realm", Old: `""`, New: "example.com"}}, nil, 1, 0,
			"level=INFO msg=\"configuration reloaded\" applied=\"log.level: info -> debug\"\nlevel=WARN msg=\"restart needed\" for=\"listen.https: :443 -> :444; turn.realm: \\\"\\\" -> example.com\"\n"},
		{"refused by the gateway", good, nil, errors.New("read certificate"), 1, 0, "level=ERROR msg=\"reload refused\" err=\"read certificate\"\n"},
		{"broken", "domain: chat.example.com\nturn: {enable: false}\nlog: {level: loud}\n", nil, nil, 0, 1,
			"level=ERROR msg=\"reload refused\" err=\"c.yaml:2:8: turn: unknown key \\\"enable\\\" (did you mean \\\"enabled\\\"?)\"\n" +
				"level=ERROR msg=\"reload refused\" err=\"c.yaml:3:14: log.level: \\\"loud\\\" is not one of debug, info, warn, error\"\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := os.WriteFile(name, []byte(test.file), 0o600); err != nil {
				t.Fatal(err)
			}
			f := newFake()
			f.err = test.err
			f.changes = gateway.Changes{Applied: []gateway.Change{{Key: "log.level", Old: "info", New: "debug"}}, Restart: test.restart}
			var log bytes.Buffer
			logger := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{
				ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
					if a.Key == slog.TimeKey {
						return slog.Attr{}
					}
					return a
				},
			}))
			l := newLive(f, logger, load(name, nil))
			changes, err := l.reload()
			if l.pending.Load() != (test.restart != nil) {
				t.Errorf("changes wait for a restart: %t", l.pending.Load())
			}
			if failed := test.err != nil || test.calls == 0; failed != (err != nil) || !failed && len(changes.Restart) != len(test.restart) {
				t.Errorf("returned %+v, %v", changes, err)
			}
			if len(f.got) != test.calls || f.failed != test.failed {
				t.Errorf("%d reloads and %d failures, want %d and %d", len(f.got), f.failed, test.calls, test.failed)
			}
			got := strings.ReplaceAll(log.String(), filepath.Dir(name)+string(filepath.Separator), "")
			if diff := cmp.Diff(test.log, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
