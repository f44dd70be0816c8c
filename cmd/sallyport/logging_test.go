package main

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"sallyport/gateway"
)

// Level and form change while loggers made before are in use.
func TestLoggerChanges(t *testing.T) {
	var out bytes.Buffer
	l, how := newLogger(&out, gateway.Log{Level: "warn", Format: "json"})
	part := l.With("part", "a").WithGroup("g")
	part.Info("hidden")
	part.Warn("first", "k", 1)
	how.level.Set(slog.LevelDebug)
	how.text.Store(true)
	part.Debug("second", "k", 2)
	first, second, _ := strings.Cut(out.String(), "\n")
	if !strings.HasPrefix(first, `{"time":`) || !strings.HasSuffix(first, `"level":"WARN","msg":"first","part":"a","g":{"k":1}}`) {
		t.Errorf("logged %q", first)
	}
	if !strings.HasPrefix(second, "time=") || !strings.HasSuffix(second, " level=DEBUG msg=second part=a g.k=2\n") {
		t.Errorf("logged %q", second)
	}
}
