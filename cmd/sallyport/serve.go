package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

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
	level := new(slog.LevelVar)
	logger := newLogger(os.Stderr, l.Log, level)
	logWarnings(logger, l)
	limitMemory(logger)
	spareMemory()
	g, err := gateway.New(l.Config, gateway.Options{Logger: logger, Level: level, Version: build()})
	if err != nil {
		fmt.Fprintln(os.Stderr, "sallyport:", err)
		return 1
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	go func() { _ = newThrift(logger).Run(ctx) }()
	return operate(g, logger, func() { reload(g, logger, *name) })
}

// newLogger returns a logger as c has it. level is set from c, and may be
// changed later.
func newLogger(w io.Writer, c gateway.Log, level *slog.LevelVar) *slog.Logger {
	var l slog.Level
	if err := l.UnmarshalText([]byte(c.Level)); err == nil {
		level.Set(l)
	}
	options := &slog.HandlerOptions{Level: level}
	if c.Format == "text" {
		return slog.New(slog.NewTextHandler(w, options))
	}
	return slog.New(slog.NewJSONHandler(w, options))
}

func logWarnings(logger *slog.Logger, l loaded) {
	for _, w := range l.warnings() {
		logger.Warn("configuration warning", "key", w.key, "at", w.at.String(), "warning", w.text)
	}
}

// A reloader takes a new configuration while it runs. It returns the keys whose
// change it applied, and those for which it would have to be restarted.
type reloader interface {
	Reload(gateway.Config) (applied, restart []string, err error)
	// ReloadFailed counts a configuration that could not even be loaded.
	ReloadFailed()
}

// reload reads the whole configuration again and applies what can be applied.
// If anything is wrong with it, everything stays as it is.
func reload(g reloader, logger *slog.Logger, name string) {
	l := load(name, os.Environ())
	for _, f := range l.faults {
		logger.Error("reload refused", "err", f.String())
	}
	if len(l.faults) > 0 {
		g.ReloadFailed()
		return
	}
	logWarnings(logger, l)
	applied, restart, err := g.Reload(l.Config)
	if err != nil {
		logger.Error("reload refused", "err", err)
		return
	}
	logger.Info("configuration reloaded", "applied", strings.Join(applied, ", "))
	if len(restart) > 0 {
		logger.Warn("restart needed for: " + strings.Join(restart, ", "))
	}
}
