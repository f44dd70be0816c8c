package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// A runner is what operate runs: the gateway.
type runner interface {
	// Run serves until everything has ended, ctx is cancelled, or a part fails.
	Run(ctx context.Context) error
	// Drain makes Run return once the calls have ended.
	Drain()
	// DrainLimit is how long that can take.
	DrainLimit() time.Duration
}

// operate runs g and does what signals ask for: SIGTERM or SIGINT drains it, a
// second one stops it at once, SIGHUP calls reload. It returns the exit code.
//
// A reload may hang, on a file that is a FIFO or on a dead file server, so it
// keeps no signal waiting, and its end is not waited for.
func operate(g runner, logger *slog.Logger, reload func()) int {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	// Not to be undone: the default action would kill the process with its work
	// done, were a signal to come between here and the exit.
	return operateOn(signals, g, logger, reload)
}

func operateOn(signals <-chan os.Signal, g runner, logger *slog.Logger, reload func()) int {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	notifySystemd("READY=1")

	var draining sync.WaitGroup
	defer draining.Wait()
	reloads := make(chan struct{}, 1) // one may wait: it sees what all after it would
	defer close(reloads)
	go func() {
		for range reloads {
			reload()
		}
	}()
	stopping := false
	for {
		select {
		case err := <-ended:
			if err != nil {
				logger.Error("stopped by an error", "err", err)
				return 1
			}
			return 0
		case s := <-signals:
			switch {
			case s == syscall.SIGHUP:
				select {
				case reloads <- struct{}{}:
				default:
					logger.Warn("reload still under way, another one follows")
				}
			case !stopping:
				stopping = true
				logger.Info("told to stop", "signal", s.String())
				notifyStopping(g.DrainLimit())
				draining.Go(g.Drain)
			default:
				logger.Warn("told to stop at once", "signal", s.String())
				stop()
			}
		}
	}
}
