package gateway

import (
	"context"
	"log/slog"
	"sync/atomic"

	"golang.org/x/time/rate"
)

// lineRate and lineBurst bound the log lines of one kind that clients can cause
// above debug level, per second and at once.
const (
	lineRate  = 1
	lineBurst = 10
)

// A rarely lets one kind of log line through as often as the disk can bear,
// however often clients cause it.
type rarely struct {
	limit      *rate.Limiter
	suppressed atomic.Int64
}

func newRarely() *rarely { return &rarely{limit: rate.NewLimiter(lineRate, lineBurst)} }

// allow reports whether a line may be written now, and the attributes that tell
// how many were not since the last one.
func (r *rarely) allow() (also []any, ok bool) {
	if !r.limit.Allow() {
		r.suppressed.Add(1)
		return nil, false
	}
	if n := r.suppressed.Swap(0); n > 0 {
		also = []any{"suppressed", n}
	}
	return also, true
}

// log writes a line at level, or at debug level while no more such lines may be
// written.
func (r *rarely) log(logger *slog.Logger, level slog.Level, message string, args ...any) {
	also, ok := r.allow()
	if !ok {
		level = slog.LevelDebug
	}
	logger.Log(context.Background(), level, message, append(args, also...)...)
}
