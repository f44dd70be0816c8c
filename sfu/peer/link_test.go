package peer

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/sfu/wire"
)

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestDialSaysHello(t *testing.T) {
	r := newRig(t)
	heard := make(chan wire.Envelope, 1)
	c := r.config()
	c.Handle = func(e wire.Envelope) { heard <- e }
	l, err := Dial(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if e := receive(t, heard, "hello"); e.Type != wire.TypeHello || e.ClientID != "client" || len(e.ConnID) != 26 {
		t.Errorf("got %+v", e)
	}
	if r.registers != 0 {
		t.Errorf("%d registrations of a known client", r.registers)
	}
}

func TestDialRegistersOnce(t *testing.T) {
	r := newRig(t)
	r.registered = false
	l, err := Dial(t.Context(), r.config())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if r.registers != 1 {
		t.Errorf("%d registrations, want 1", r.registers)
	}
}

func TestDialFails(t *testing.T) {
	r := newRig(t)
	for _, x := range []struct {
		name      string
		change    func(*LinkConfig)
		want      string
		registers int
	}{
		{"wrong key", func(c *LinkConfig) { c.AuthKey = "wrong" }, "already registered", 1},
		{"wrong key, no register", func(c *LinkConfig) { c.AuthKey = "wrong"; c.NoRegister = true }, "401", 0},
		{"no scheme", func(c *LinkConfig) { c.URL = "127.0.0.1:8045" }, "parse rtcd URL", 0},
		{"wrong scheme", func(c *LinkConfig) { c.URL = "ws://127.0.0.1:8045" }, "want http://host:port", 0},
		{"nobody there", func(c *LinkConfig) { c.URL = "http://127.0.0.1:1" }, "refused", 0},
	} {
		r.registers = 0
		c := r.config()
		x.change(&c)
		_, err := Dial(t.Context(), c)
		if err == nil || !strings.Contains(err.Error(), x.want) || r.registers != x.registers {
			t.Errorf("%s: %v after %d registrations; want %q after %d", x.name, err, r.registers, x.want, x.registers)
		}
		if err != nil && strings.Contains(err.Error(), rigKey) {
			t.Errorf("%s: the error tells the key: %v", x.name, err)
		}
	}
}

func TestCredentialsInURL(t *testing.T) {
	r := newRig(t)
	l, err := Dial(t.Context(), LinkConfig{URL: strings.Replace(r.http.URL, "http://", "http://client:"+rigKey+"@", 1) + "/ignored"})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

func TestLinkKeepsOrderAndEnds(t *testing.T) {
	r := newRig(t)
	l, err := Dial(t.Context(), r.config())
	if err != nil {
		t.Fatal(err)
	}
	const n = 500
	for i := range n {
		if err := l.Send(wire.Envelope{Type: wire.TypeReconnect, Session: strings.Repeat("x", i)}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range n {
		if e := receive(t, r.envelopes, "an envelope"); len(e.Session) != i {
			t.Fatalf("envelope %d came when %d was due", len(e.Session), i)
		}
	}
	if err := l.Close(); err != nil || !errors.Is(l.Err(), ErrClosed) {
		t.Errorf("Close: %v, Err: %v", err, l.Err())
	}
	if err := l.Send(wire.Envelope{Type: wire.TypeLeave}); !errors.Is(err, ErrClosed) {
		t.Errorf("Send after Close: %v, want ErrClosed", err)
	}
}

func TestLinkEndsWithServer(t *testing.T) {
	r := newRig(t)
	l, err := Dial(t.Context(), r.config())
	if err != nil {
		t.Fatal(err)
	}
	receive(t, r.linked, "the server's end of the link")
	r.mu.Lock()
	_ = r.conn.CloseNow()
	r.mu.Unlock()
	receive(t, l.Done(), "the end of the link")
	if l.Err() == nil || errors.Is(l.Err(), ErrClosed) {
		t.Errorf("Err is %v, want the reason of the server's going", l.Err())
	}
}

func TestFullQueueEndsLink(t *testing.T) {
	l := &Link{queue: make(chan wire.Envelope, 2)}
	l.ctx, l.cancel = context.WithCancelCause(t.Context())
	for range 2 {
		if err := l.Send(wire.Envelope{Type: wire.TypeLeave}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Send(wire.Envelope{Type: wire.TypeLeave}); !errors.Is(err, ErrSlow) {
		t.Errorf("Send into a full queue: %v, want ErrSlow", err)
	}
	if !errors.Is(l.Err(), ErrSlow) {
		t.Errorf("Err is %v, want ErrSlow", l.Err())
	}
}

func TestSourceCatchesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource("audio/opus", "id", "stream")
		stop, done := make(chan struct{}), make(chan struct{})
		var frames, nap atomic.Int64
		go func() {
			defer close(done)
			s.pace(stop, audioInterval, func() {
				frames.Add(1)
				time.Sleep(time.Duration(nap.Swap(0)))
			})
		}()
		time.Sleep(time.Second + time.Millisecond)
		synctest.Wait()
		if frames := frames.Load(); frames != 50 {
			t.Errorf("%d frames in a second, want 50", frames)
		}
		nap.Store(int64(100 * time.Millisecond)) // a short hold-up is made good
		time.Sleep(time.Second)
		synctest.Wait()
		if frames := frames.Load(); frames != 100 {
			t.Errorf("%d frames in two seconds, want 100", frames)
		}
		nap.Store(int64(time.Second)) // a long one is not
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if frames := frames.Load(); frames < 149 || frames > 152 {
			t.Errorf("%d frames after a second without, want 150", frames)
		}
		close(stop)
		<-done
	})
}
