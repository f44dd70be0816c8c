package turn

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/stun"
)

// Whatever a source that may be forged sends, nobody gets more than three times
// as much; with the longest realm a browser still gets its challenge.
func TestNoAmplification(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Realm = strings.Repeat("r", MaxRealm) })
	holder := r.talk("udp", "") // whose address may be forged, too
	holder.allocateAs("alice")
	for name, tk := range map[string]*talker{"a stranger": r.talk("udp", ""), "the holder of an allocation": holder} {
		before := r.total("drops_total", "amplification")
		answered := amplified(tk)
		if got := r.total("drops_total", "amplification") - before; got != 5 || answered != 5 {
			t.Errorf("to %s: %v answers were too long, %d requests were answered; want 5 and 5", name, got, answered)
		}
	}
	holder.want(holder.do(stun.MethodRefresh), 0)
}

// amplified sends requests that anybody could forge; it returns how many are
// answered, and fails if an answer is too long.
func amplified(tk *talker) (answered int) {
	tk.Helper()
	unsigned := func(method stun.Method, attrs ...stun.Setter) []byte {
		return stun.MustBuild(append([]stun.Setter{stun.TransactionID, stun.NewType(method, stun.ClassRequest)}, attrs...)...).Raw
	}
	wrong := func(name string) []byte {
		return unsigned(stun.MethodAllocate, requestUDP, stun.NewUsername(name), stun.NewRealm("r"), stun.NewNonce("n"), stun.MessageIntegrity("k"))
	}
	for _, b := range [][]byte{
		unsigned(stun.MethodBinding), unsigned(stun.MethodAllocate), unsigned(stun.MethodRefresh), unsigned(stun.MethodCreatePermission),
		unsigned(stun.MethodChannelBind), unsigned(stun.MethodAllocate, requestUDP), unsigned(stun.MethodAllocate, stun.Fingerprint),
		unsigned(stun.MethodAllocate, stun.MessageIntegrity("k")), wrong(""), wrong("1:alice"),
	} {
		if answer := tk.unless("amplification", b); len(answer) > maxAmplification*len(b) {
			tk.Errorf("%d bytes answer %d: % x", len(answer), len(b), b)
		} else if answer != nil {
			answered++
		}
	}
	return answered
}

// unless sends b and returns the answer, nil if the server drops it for a reason.
func (tk *talker) unless(reason string, b []byte) []byte {
	tk.Helper()
	before := tk.total("drops_total", reason)
	tk.send(b)
	for end := time.Now().Add(testWait); time.Now().Before(end); {
		if answer := tk.receive(time.Millisecond); answer != nil {
			return answer
		}
		if tk.total("drops_total", reason) > before {
			return nil
		}
	}
	tk.Fatalf("neither answered nor dropped: % x", b)
	return nil
}

// Binding answers are rationed like errors, but never those on streams. Who
// holds an allocation is answered what he signs.
func TestBindingIsRationed(t *testing.T) {
	r := newRig(t, nil)
	known := r.talk("udp", "alice")
	known.allocate()
	c := r.server.challenges
	c.mu.Lock()
	c.rate, c.burst = 0, 0 // all spent
	c.mu.Unlock()
	ask := stun.MustBuild(stun.TransactionID, stun.BindingRequest).Raw
	for _, tk := range []*talker{known, r.talk("udp", "")} {
		if b := tk.unless("challenge", ask); b != nil {
			t.Errorf("answered % x", b)
		}
	}
	known.want(known.do(stun.MethodRefresh), 0)
	for _, tk := range []*talker{r.talk("tcp", ""), r.talk("tls", "")} {
		tk.send(ask)
		if tk.receive(testWait) == nil {
			t.Error("no answer to a proven source")
		}
	}
	if got := r.total("drops_total", "challenge"); got != 2 {
		t.Errorf("%v suppressed answers counted", got)
	}
}

// A client that runs into its quota again and again does not fill the disk.
func TestLogIsBounded(t *testing.T) {
	var mu sync.Mutex
	var log bytes.Buffer
	h := NewHairpin(testRelayIPs, []Alias{{testNamed, testLocal}})
	s, err := New(Config{UserAllocations: 1}, h, Options{
		Secrets: [][]byte{[]byte(testSecret)}, Logger: slog.New(slog.NewTextHandler(lockedWriter{&mu, &log}, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	r, code := s.newRelay("alice", "alice", overUDP, wish{})
	if code != 0 {
		t.Fatal(code)
	}
	defer r.abandon()
	for range 1000 {
		if _, code := s.newRelay("alice", "alice", overUDP, wish{}); code != stun.CodeAllocQuotaReached {
			t.Fatalf("code %d", code)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if n := strings.Count(log.String(), "\n"); n == 0 || n > 2*reportBurst {
		t.Errorf("%d lines", n)
	}
}

type lockedWriter struct {
	mu *sync.Mutex
	b  *bytes.Buffer
}

func (w lockedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}
