package rtcd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	"golang.org/x/crypto/bcrypt"
)

func TestStatement13KeysSurviveARestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "clients")
	r, _ := startFake(t, Config{SelfRegistration: true, Store: dir})
	if a := r.do("POST", "/register", "", credentials("clientC", keyA)); a.status != 201 {
		t.Fatalf("register: %d %s", a.status, a.body)
	}
	r.stop()

	// Even with self-registration off, those who registered remain clients.
	r, _ = startFake(t, Config{Store: dir})
	if p := r.dial("clientC:" + keyA); p.hello.ClientID != "clientC" {
		t.Errorf("hello %+v", p.hello)
	}
	if a := r.do("GET", "/calls/c/sessions", "clientC:"+keyB, ""); a.status != 401 {
		t.Errorf("wrong key: %d", a.status)
	}
	if a := r.do("GET", "/calls/c/sessions", "clientC:"+keyA+strings.Repeat("x", 72), ""); a.status != 401 {
		t.Errorf("key with a tail: %d", a.status)
	}
}

func TestKeysAreHashedWithBcrypt(t *testing.T) {
	st, err := openStore(t.TempDir(), true)
	if err != nil {
		t.Fatal(err)
	}
	defer st.close()
	a, err := newAccounts(st, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.register(t.Context(), "clientC", keyA); err != nil {
		t.Fatal(err)
	}
	hash, err := st.hash("clientC")
	if err != nil {
		t.Fatal(err)
	}
	if cost, err := bcrypt.Cost(hash); err != nil || cost != 10 {
		t.Errorf("cost %d, %v, want 10", cost, err)
	}
}

func TestTheStoreIsPrivateAndUsedByOneProcess(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "clients")
	st, err := openStore(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	defer st.close()
	for name, want := range map[string]fs.FileMode{dir: 0o700, filepath.Join(dir, storeFile): 0o600} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v, want %v", name, info.Mode(), err, want)
		}
	}
	if _, err := openStore(dir, false); err == nil {
		t.Error("the store can be opened twice")
	}
}

func TestTheStoreIsNotMadeWithoutNeed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "clients")
	startFake(t, Config{Store: dir})
	if _, err := os.Stat(dir); err == nil {
		t.Error("a store was made although nobody can register")
	}
}

func TestTheStoreRefusesGarbage(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, storeFile), []byte(strings.Repeat("garbage ", 4096)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := newServer(Config{SelfRegistration: true, Store: dir}, &fakeMedia{}, Options{}); err == nil {
		t.Error("garbage is accepted as a store")
	}
}

func TestStatement14ParallelLoginsNeverHang(t *testing.T) {
	r, _ := startFake(t, Config{SelfRegistration: true, Store: t.TempDir()})
	if a := r.do("POST", "/register", "", credentials("clientC", keyA)); a.status != 201 {
		t.Fatalf("register: %d %s", a.status, a.body)
	}
	begin := time.Now()
	var wg sync.WaitGroup
	for i := range 60 {
		key := keyA
		if i%2 == 1 {
			key = keyB // guesses, each of which costs a turn
		}
		wg.Go(func() {
			a := r.do("POST", "/login", "", credentials("clientC", key))
			if ok := a.status == 200; ok != (key == keyA) && !(key == keyA && a.status == 401) {
				t.Errorf("login with %s: %d %s", key, a.status, a.body)
			}
		})
	}
	wg.Wait()
	if d := time.Since(begin); d > hashWait+30*time.Second {
		t.Errorf("60 logins took %v", d)
	}
}

// Client A's queue is full of attempts that will never end; B's turn comes.
func TestGuessingOneClientsKeyDoesNotHoldUpAnother(t *testing.T) {
	h := newHashQueues()
	release := make(chan struct{})
	begun := make(chan struct{})
	never := func() bool { return false }
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = h.do(context.Background(), "A", never, func() error { close(begun); <-release; return nil })
	})
	<-begun
	for range hashQueue - 1 {
		wg.Go(func() { _ = h.do(context.Background(), "A", func() bool { return true }, nil) })
	}
	until(t, "the queue to fill", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.queues["A"].waiting == hashQueue
	})
	if err := h.do(context.Background(), "A", never, nil); err != errBusy {
		t.Errorf("one more of A: %v, want %v", err, errBusy)
	}
	hashed := false
	if err := h.do(context.Background(), "B", never, func() error { hashed = true; return nil }); err != nil || !hashed {
		t.Errorf("B: %v, hashed %v", err, hashed)
	}
	close(release)
	wg.Wait()
	if len(h.queues) != 0 {
		t.Errorf("%d queues are left", len(h.queues))
	}
}

func TestAClientInUseDoesNotWaitBehindGuesses(t *testing.T) {
	st, err := openStore(t.TempDir(), true)
	if err != nil {
		t.Fatal(err)
	}
	defer st.close()
	a, err := newAccounts(st, nil)
	if err != nil {
		t.Fatal(err)
	}
	a.cost = bcrypt.MinCost
	if err := a.register(t.Context(), "clientC", keyA); err != nil {
		t.Fatal(err)
	}
	if err := a.verify(t.Context(), "clientC", keyA); err != nil {
		t.Fatal(err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel() // no turn will come
	if err := a.verify(gone, "clientC", keyA); err != nil {
		t.Errorf("a key that proved right is hashed again: %v", err)
	}
	if err := a.verify(gone, "clientC", keyB); err != errCredential {
		t.Errorf("another key: %v", err)
	}
	// The memory does not outlive the registration.
	if err := a.unregister("clientC"); err != nil {
		t.Fatal(err)
	}
	if err := a.register(t.Context(), "clientC", keyB); err != nil {
		t.Fatal(err)
	}
	if err := a.verify(t.Context(), "clientC", keyA); err != errCredential {
		t.Errorf("the key of the former registration: %v", err)
	}
}

func TestTokensExpire(t *testing.T) {
	a, err := newAccounts(nil, map[string][]byte{"clientA": []byte(keyA)})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	a.now = func() time.Time { return now }
	text, err := a.login(t.Context(), "clientA", keyA)
	if err != nil {
		t.Fatal(err)
	}
	now = now.Add(24 * time.Hour)
	if _, err := a.bearer(text); err != nil {
		t.Errorf("after 24 h: %v", err)
	}
	now = now.Add(time.Second)
	if _, err := a.bearer(text); err != errTokenExpired {
		t.Errorf("after more: %v", err)
	}
	for range 100 {
		if _, err := a.login(t.Context(), "clientA", keyA); err != nil {
			t.Fatal(err)
		}
	}
	if len(a.tokens) != 1 || len(a.current) != 1 {
		t.Errorf("one client has %d tokens", len(a.tokens))
	}
}

func TestReloadedKeys(t *testing.T) {
	r, _ := startFake(t, Config{})
	a, b := r.dial("clientA:"+keyA), r.dial("clientB:"+keyB)
	token := r.do("POST", "/login", "", credentials("clientA", keyA)).object(t)["bearerToken"]
	const rotated = "fedcba9876543210fedcba9876543210"
	r.server.SetKeys(map[string][]byte{"clientA": []byte(rotated), "clientD": []byte(keyB), "short": []byte("short")})

	for auth, want := range map[string]int{
		"clientA:" + keyA:    401,
		"clientA:" + rotated: 404, // in, but there is no such call
		"Bearer " + token:    401,
		"clientB:" + keyB:    401,
		"clientD:" + keyB:    404,
		"short:short":        401,
	} {
		if got := r.do("GET", "/calls/c/sessions", auth, ""); got.status != want {
			t.Errorf("%s: %d, want %d", auth, got.status, want)
		}
	}
	if _, err := b.readErr(); err == nil {
		t.Error("a client that is declared no longer keeps its connection")
	}
	a.join("c1", "s1") // a rotated key does not cut the calls of its client
	until(t, "the join", func() bool { return r.server.media.Session("clientA", "s1") != nil })
}

func TestRegistrationsAreBounded(t *testing.T) {
	st, err := openStore(t.TempDir(), true)
	if err != nil {
		t.Fatal(err)
	}
	defer st.close()
	err = st.db.Update(func(tx *bbolt.Tx) error {
		for i := range maxClients - 1 {
			if err := tx.Bucket([]byte(clientsBucket)).Put(fmt.Appendf(nil, "client%05d", i), []byte("hash")); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := st.add("the last", []byte("hash")); err != nil {
		t.Errorf("client %d: %v", maxClients, err)
	}
	if err := st.add("one more", []byte("hash")); err != errFull {
		t.Errorf("client %d: %v, want %v", maxClients+1, err, errFull)
	}
}

func TestTheStoreRefusesWhatIsLeftOfIt(t *testing.T) {
	dir := t.TempDir()
	st, err := openStore(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	st.db.NoSync = true
	for i := range 1000 {
		if err := st.add(fmt.Sprintf("client-%040d", i), make([]byte, 60)); err != nil {
			t.Fatal(err)
		}
	}
	if err := st.close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(filepath.Join(dir, storeFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{9000, 20 << 10, 64 << 10, 128 << 10} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, storeFile), whole[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := openStore(dir, false); !errors.Is(err, errDamaged) {
			t.Errorf("%d of %d bytes: %v", size, len(whole), err)
		}
	}
}
