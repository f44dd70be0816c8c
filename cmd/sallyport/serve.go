package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"time"

	"sallyport/gateway"
)

// serve runs the gateway until a signal or an error ends it.
func serve(args []string) int {
	flags := flag.NewFlagSet("serve", flag.ContinueOnError)
	name := configFlag(flags)
	if code, ok := parseFlags(flags, args); !ok {
		return code
	}
	l := load(*name, os.Environ())
	if len(l.faults) > 0 {
		printComplaints(os.Stderr, "", l.faults)
		return 1
	}
	logger, log := newLogger(os.Stderr, l.Log)
	logWarnings(logger, l)
	limitMemory(logger)
	spareMemory()
	sockets, err := inheritedSockets()
	if err != nil {
		fmt.Fprintln(os.Stderr, "sallyport:", err)
		return 1
	}
	var running *live // when commands can come, it is there
	g, err := gateway.New(l.Config, gateway.Options{
		Logger: logger, Level: &log.level, TextLog: &log.text, Version: build(), Inherited: sockets,
		Reload: func() (gateway.Changes, error) { return running.reload() },
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "sallyport:", err)
		return 1
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	go func() { _ = newThrift(logger).Run(ctx) }()
	go newCollector().Run(ctx)
	running = newLive(g, logger, l)
	go running.watch(ctx, time.Tick(watchInterval))
	if os.Getenv("NOTIFY_SOCKET") != "" {
		go running.report(g).run(ctx)
	}
	return operate(g, logger, func() { _, _ = running.reload() })
}

func logWarnings(logger *slog.Logger, l loaded) {
	for _, w := range l.warnings() {
		logger.Warn("configuration warning", "key", w.key, "at", w.at.String(), "warning", w.text)
	}
}

// report returns what tells the service manager about g.
func (l *live) report(g *gateway.Gateway) *reporter {
	return &reporter{
		status: func() string {
			line := statusLine(g.Status())
			if l.pending.Load() {
				line += "; changes wait for a restart"
			}
			if l.refused.Load() {
				line += "; the last reload was refused"
			}
			return line
		},
		alive: askHealth(g.Addrs().Admin), watchdog: watchdogTime(), logger: l.logger, tell: notifySystemd,
	}
}
