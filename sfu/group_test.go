package sfu

import (
	"errors"
	"fmt"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"sallyport/sfu/wire"
)

// joinSilent joins somebody who never sends an offer.
func joinSilent(srv *Server, group, session string) (*Session, muteSignal, error) {
	m := muteSignal{answers: make(chan wire.Description, 1), closed: make(chan struct{})}
	s, err := srv.Join(Member{Group: group, Call: "c", User: "u", Session: session}, m)
	return s, m, err
}

func TestAGroupHasSoManySessions(t *testing.T) {
	srv := startServer(t)
	for i := range maxGroupSessions {
		if _, _, err := joinSilent(srv, "greedy", fmt.Sprint("s", i)); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := joinSilent(srv, "greedy", "one more"); !errors.Is(err, ErrFull) {
		t.Errorf("one more: %v, want %v", err, ErrFull)
	}
	if _, _, err := joinSilent(srv, "other", "s"); err != nil {
		t.Errorf("another group: %v", err)
	}
	srv.Session("greedy", "s0").Leave()
	if _, _, err := joinSilent(srv, "greedy", "one more"); err != nil {
		t.Errorf("after one has left: %v", err)
	}
}

func TestAForgottenGroupIsCountedNoLonger(t *testing.T) {
	socks, err := Listen(Config{UDP: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = socks.Close() })
	registry := prometheus.NewRegistry()
	srv, err := New(socks, Options{Metrics: registry})
	if err != nil {
		t.Fatal(err)
	}
	counted := func(want int) {
		t.Helper()
		if n, err := testutil.GatherAndCount(registry, "rtcd_rtc_sessions_total"); n != want || err != nil {
			t.Errorf("%d groups are counted, %v; want %d", n, err, want)
		}
	}
	leave := func(s *Session, m muteSignal, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		s.Leave()
		<-m.closed
	}
	leave(joinSilent(srv, "gone", "s"))
	counted(1)
	srv.Forget("gone")
	counted(0)

	s, m, err := joinSilent(srv, "busy", "s")
	srv.Forget("busy")
	counted(1) // until its last session has ended
	leave(s, m, err)
	counted(0)

	s, m, err = joinSilent(srv, "back", "s")
	srv.Forget("back")
	s2, m2, err2 := joinSilent(srv, "back", "again")
	leave(s, m, err)
	leave(s2, m2, err2)
	counted(1)
}
