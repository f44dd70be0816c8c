package main

import (
	"context"
	"io"
	"log/slog"
	"sync/atomic"

	"sallyport/gateway"
)

// A logging is what of the log may be changed while it is written.
type logging struct {
	level slog.LevelVar
	text  atomic.Bool // else JSON
}

// newLogger returns a logger to w as c has it.
func newLogger(w io.Writer, c gateway.Log) (*slog.Logger, *logging) {
	how := &logging{}
	var l slog.Level
	if err := l.UnmarshalText([]byte(c.Level)); err == nil {
		how.level.Set(l)
	}
	how.text.Store(c.Format == "text")
	options := &slog.HandlerOptions{Level: &how.level}
	return slog.New(eitherHandler{&how.text, slog.NewTextHandler(w, options), slog.NewJSONHandler(w, options)}), how
}

// An eitherHandler writes text or JSON.
type eitherHandler struct {
	text         *atomic.Bool
	inText, json slog.Handler
}

func (h eitherHandler) now() slog.Handler {
	if h.text.Load() {
		return h.inText
	}
	return h.json
}

// Enabled is of [slog.Handler].
func (h eitherHandler) Enabled(ctx context.Context, l slog.Level) bool {
	return h.now().Enabled(ctx, l)
}

// Handle is of [slog.Handler].
func (h eitherHandler) Handle(ctx context.Context, r slog.Record) error {
	return h.now().Handle(ctx, r)
}

// WithAttrs is of [slog.Handler].
func (h eitherHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return eitherHandler{h.text, h.inText.WithAttrs(attrs), h.json.WithAttrs(attrs)}
}

// WithGroup is of [slog.Handler].
func (h eitherHandler) WithGroup(name string) slog.Handler {
	return eitherHandler{h.text, h.inText.WithGroup(name), h.json.WithGroup(name)}
}
