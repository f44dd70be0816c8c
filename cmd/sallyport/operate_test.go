package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/gateway"
)

// A fakeGateway runs until its context ends, or end is given something.
type fakeGateway struct {
	end     chan error
	drained chan struct{}
	failed  int
	got     []gateway.Config
	changes gateway.Changes
	err     error
}

func newFake() *fakeGateway {
	return &fakeGateway{end: make(chan error), drained: make(chan struct{})}
}

func (f *fakeGateway) Run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-f.end:
		return err
	}
}

func (f *fakeGateway) Drain() { close(f.drained) }

func (f *fakeGateway) DrainLimit() time.Duration { return time.Minute }

func (f *fakeGateway) ReloadFailed() { f.failed++ }

func (f *fakeGateway) Reload(c gateway.Config) (gateway.Changes, error) {
	f.got = append(f.got, c)
	return f.changes, f.err
}

func TestSignals(t *testing.T) {
	const patience = 30 * time.Second
	for _, test := range []struct {
		name string
		act  func(f *fakeGateway, signals chan<- os.Signal)
		code int
	}{
		{"ends by itself", func(f *fakeGateway, _ chan<- os.Signal) { f.end <- nil }, 0},
		{"fails", func(f *fakeGateway, _ chan<- os.Signal) { f.end <- errors.New("lost") }, 1},
		{"SIGTERM drains", func(f *fakeGateway, signals chan<- os.Signal) {
			signals <- syscall.SIGTERM
			<-f.drained
			f.end <- nil
		}, 0},
		{"a second SIGTERM does not wait", func(f *fakeGateway, signals chan<- os.Signal) {
			signals <- syscall.SIGTERM
			<-f.drained
			signals <- syscall.SIGINT // nothing else ends this one
		}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFake()
			signals := make(chan os.Signal)
			code := make(chan int)
			go func() {
				code <- operateOn(signals, f, slog.New(slog.DiscardHandler), func() { t.Error("reloads") })
			}()
			go test.act(f, signals)
			select {
			case got := <-code:
				if got != test.code {
					t.Errorf("exit code %d, want %d", got, test.code)
				}
			case <-time.After(patience):
				t.Fatal("does not end")
			}
		})
	}
}

// A reload that hangs keeps no other signal waiting; those that come meanwhile
// are one more reload.
func TestSIGHUPWhileAReloadHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		signals, code := make(chan os.Signal), make(chan int, 1)
		reloads, release := 0, make(chan struct{})
		go func() {
			code <- operateOn(signals, f, slog.New(slog.DiscardHandler), func() { reloads++; <-release })
		}()
		for range 5 {
			signals <- syscall.SIGHUP
			synctest.Wait()
		}
		release <- struct{}{} // the second now hangs as well
		signals <- syscall.SIGTERM
		<-f.drained
		f.end <- nil
		if got := <-code; got != 0 {
			t.Errorf("exit code %d, want 0", got)
		}
		release <- struct{}{}
		synctest.Wait()
		if reloads != 2 {
			t.Errorf("%d reloads, want 2", reloads)
		}
	})
}
