package tls

import (
	"context"
	"log/slog"
	"strings"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// A zapCore writes what the ACME library logs, which knows only zap, to slog.
//
// The library tells every step at level info, so all that becomes debug. Its
// errors become warnings, but only those of its own work: entries without a
// logger name come from handshakes and challenge requests, which strangers
// cause at will.
type zapCore struct {
	log *slog.Logger
}

func newZap(log *slog.Logger) *zap.Logger { return zap.New(zapCore{log}) }

// level translates the level of an entry.
func (zapCore) level(e zapcore.Entry) slog.Level {
	own := e.LoggerName != "" && !strings.Contains(e.LoggerName, "handshake")
	if own && e.Level >= zapcore.ErrorLevel {
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

// Enabled implements zapcore.LevelEnabler. Check decides; it sees the entry.
func (c zapCore) Enabled(zapcore.Level) bool { return true }

// With implements zapcore.Core.
func (c zapCore) With(fields []zapcore.Field) zapcore.Core {
	return zapCore{c.log.With(attributes(fields)...)}
}

// Check implements zapcore.Core.
func (c zapCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.log.Enabled(context.Background(), c.level(e)) {
		return ce.AddCore(e, c)
	}
	return ce
}

// Write implements zapcore.Core.
func (c zapCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	c.log.With(attributes(fields)...).Log(context.Background(), c.level(e), "acme library", "text", e.Message)
	return nil
}

// Sync implements zapcore.Core.
func (c zapCore) Sync() error { return nil }

func attributes(fields []zapcore.Field) []any {
	enc := zapcore.NewMapObjectEncoder()
	out := make([]any, 0, len(fields))
	for _, f := range fields {
		f.AddTo(enc)
	}
	for k, v := range enc.Fields {
		out = append(out, slog.Any(k, v))
	}
	return out
}
