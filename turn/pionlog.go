package turn

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"

	"github.com/pion/logging"
	"golang.org/x/time/rate"
)

const (
	pionLogRate  = 1 // lines per second
	pionLogBurst = 10
)

// pionLog passes on what pion/turn logs, at most so often: some of its lines
// are caused by packets. Its debug lines are not even formatted.
type pionLog struct {
	log        *slog.Logger
	limit      *rate.Limiter
	suppressed *atomic.Int64
}

// newPionLog returns a logger factory that writes to log.
func newPionLog(log *slog.Logger) logging.LoggerFactory {
	return pionLog{log: log, limit: rate.NewLimiter(pionLogRate, pionLogBurst), suppressed: new(atomic.Int64)}
}

// NewLogger returns the logger of one of pion's scopes.
func (l pionLog) NewLogger(scope string) logging.LeveledLogger {
	l.log = l.log.With("scope", scope)
	return l
}

func (l pionLog) write(level slog.Level, format string, args ...any) {
	if !l.log.Enabled(context.Background(), level) {
		return
	}
	if !l.limit.Allow() {
		l.suppressed.Add(1)
		return
	}
	l.log.Log(context.Background(), level, "pion", "text", fmt.Sprintf(format, args...), "suppressed", l.suppressed.Swap(0))
}

// What follows is logging.LeveledLogger. pion's Info tells of single packets.

func (l pionLog) Trace(string)                  {}
func (l pionLog) Tracef(string, ...any)         {}
func (l pionLog) Debug(string)                  {}
func (l pionLog) Debugf(string, ...any)         {}
func (l pionLog) Info(msg string)               { l.write(slog.LevelDebug, "%s", msg) }
func (l pionLog) Infof(format string, a ...any) { l.write(slog.LevelDebug, format, a...) }
func (l pionLog) Warn(msg string)               { l.write(slog.LevelWarn, "%s", msg) }
func (l pionLog) Warnf(format string, a ...any) { l.write(slog.LevelWarn, format, a...) }
func (l pionLog) Error(msg string)              { l.write(slog.LevelWarn, "%s", msg) }
func (l pionLog) Errorf(format string, a ...any) {
	l.write(slog.LevelWarn, format, a...)
}
