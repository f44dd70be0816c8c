package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"

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
	running := &live{gateway: g, logger: logger, file: *name}
	return operate(g, logger, func() { _, _ = running.reload() })
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
