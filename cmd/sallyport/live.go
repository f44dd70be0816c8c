package main

import (
	"errors"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"sallyport/gateway"
)

// A reloader takes a new configuration while it runs, and says what changed.
type reloader interface {
	Reload(gateway.Config) (gateway.Changes, error)
	// ReloadFailed counts a configuration that could not even be loaded.
	ReloadFailed()
}

// live is the configuration of a running gateway. Whoever wants a reload, a
// signal or a command, calls reload.
type live struct {
	gateway reloader
	logger  *slog.Logger
	file    string // "" if there is none

	reloading sync.Mutex  // one at a time, from the reading on
	refused   atomic.Bool // the latest
	pending   atomic.Bool // the latest that was not refused holds what only a restart puts in force

	mu   sync.Mutex // guards the following
	last loaded     // that was without faults; the gateway may have refused it
	seen digest     // of the files, when they were last read
}

// newLive returns the configuration of g, which was made of first.
func newLive(g reloader, logger *slog.Logger, first loaded) *live {
	return &live{gateway: g, logger: logger, file: first.file, last: first, seen: digestOf(sum(first.file), first)}
}

// reload reads the whole configuration again and applies what can be applied. If
// anything is wrong with it, everything stays as it is. The result is logged, and
// returned for whoever asked.
func (l *live) reload() (gateway.Changes, error) {
	l.reloading.Lock()
	defer l.reloading.Unlock()
	notifyReloading()
	defer notifySystemd("READY=1")
	changes, err := l.apply()
	l.refused.Store(err != nil)
	return changes, err
}

func (l *live) apply() (gateway.Changes, error) {
	next := l.load()
	if len(next.faults) > 0 {
		l.gateway.ReloadFailed()
		return gateway.Changes{}, l.refuse(next.faults)
	}
	logWarnings(l.logger, next)
	changes, err := l.gateway.Reload(next.Config)
	if err != nil {
		l.logger.Error("reload refused", "err", err)
		return gateway.Changes{}, err
	}
	l.logger.Info("configuration reloaded", "applied", sentence(changes.Applied))
	l.pending.Store(len(changes.Restart) > 0)
	if len(changes.Restart) > 0 {
		l.logger.Warn("restart needed", "for", sentence(changes.Restart))
	}
	return changes, nil
}

// load reads the file. The digest is of what was there before that, and before
// the gateway reads the secrets, so that a change meanwhile is not missed.
func (l *live) load() loaded {
	file := sum(l.file)
	next := load(l.file, os.Environ())
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(next.faults) == 0 {
		l.last = next
	}
	l.seen = digestOf(file, l.last)
	return next
}

// refuse logs each fault and makes one error of all.
func (l *live) refuse(faults []complaint) error {
	var errs []error
	for _, f := range faults {
		l.logger.Error("reload refused", "err", f.String())
		errs = append(errs, errors.New(f.String()))
	}
	return errors.Join(errs...)
}

func sentence(changes []gateway.Change) string {
	out := make([]string, len(changes))
	for i, c := range changes {
		out[i] = c.String()
	}
	return strings.Join(out, "; ")
}
