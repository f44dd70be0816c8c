package main

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// sockets are the numbers of idle WebSockets, in growing order.
var sockets = []int{2000, 8000}

// A bench is the whole comparison.
type bench struct {
	options
	programs     map[string]string // by name
	upstreamAddr string
	results      results
}

// measure puts one program under every load, once.
func (b *bench) measure(ctx context.Context, name string) error {
	t, err := b.start(ctx, name)
	if err != nil {
		return err
	}
	defer func() { t.stop() }()
	for _, l := range loads {
		if !strings.Contains(l.name, b.loads) {
			continue
		}
		if err := b.load(ctx, t, l); err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
	}
	if !b.sockets {
		return nil
	}
	t.stop()
	if t, err = b.start(ctx, name); err != nil { // memory is judged of a process that did nothing else
		return err
	}
	return b.hold(ctx, t)
}

// load measures one load.
func (b *bench) load(ctx context.Context, t *target, l load) error {
	if _, err := l.run(ctx, t.addr, b.dir, time.Second); err != nil { // connections to the upstream, caches
		return err
	}
	before, err := t.usage()
	if err != nil {
		return err
	}
	got, err := l.run(ctx, t.addr, b.dir, b.duration)
	if err != nil {
		return err
	}
	after, err := t.usage()
	if err != nil {
		return err
	}
	per := float64((after.cpu - before.cpu).Microseconds()) / float64(got.requests)
	b.results.add(l.name, t.name, "cpu", per)
	b.results.add(l.name, t.name, "rate", float64(got.requests)/got.took.Seconds())
	b.results.add(l.name, t.name, "p99", float64(got.p99.Microseconds())/1000)
	return nil
}

// hold opens WebSockets and looks at memory while they are idle.
func (b *bench) hold(ctx context.Context, t *target) error {
	h := newHolder(t.addr)
	defer h.close()
	if err := h.grow(ctx, 20); err != nil { // code and pools that the first few need
		return err
	}
	base, err := t.usage()
	if err != nil {
		return err
	}
	for _, n := range sockets {
		if err := h.grow(ctx, n); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(b.settle):
		}
		now, err := t.usage()
		if err != nil {
			return err
		}
		if lost := h.lost(); lost > 0 {
			return fmt.Errorf("%d of %d idle WebSockets ended", lost, n)
		}
		grown := float64(now.memory) - float64(base.memory)
		b.results.add(fmt.Sprintf("%d WebSockets", n), t.name, "memory", grown/1024/float64(n))
	}
	return nil
}
