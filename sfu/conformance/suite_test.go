package conformance

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience bounds every wait that has no time of its own. The machine may be
// busy with other tests.
const patience = 45 * time.Second

// gaps holds the statements that Sallyport does not fulfil yet, and why. A test
// of the table is skipped when it fails and fails when it passes.
var gaps = map[int]string{}

// A pace says how a statement's test shares the machine with the others.
type pace int

const (
	// alone runs before all others, by itself.
	alone pace = iota
	// brief runs beside others, a few at a time.
	brief
	// patient mostly waits, so it counts for nothing.
	patient
)

// briefAtOnce is how many brief tests run at the same time.
const briefAtOnce = 4

// A suite is what the tests share.
type suite struct {
	target string  // URL of a server that is not ours; "" = ours
	server *server // ours, with self-registration on; nil with a target
	url    string  // of the API under test
	client account // known to it
	binary string  // of Sallyport

	slots chan struct{}

	mu      sync.Mutex // guards the following
	results map[int]string
}

// shared is the suite: TestMain makes it, and testing offers no other way from
// there to the tests.
var shared *suite

func TestMain(m *testing.M) {
	flag.Parse()
	// Most tests wait most of the time; slots bound those that do not.
	_ = flag.Set("test.parallel", "80")
	os.Exit(mainWithExit(m))
}

func mainWithExit(m *testing.M) int {
	dir, err := os.MkdirTemp("", "conformance")
	if err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	shared = &suite{target: strings.TrimSuffix(os.Getenv("SALLYPORT_CONFORMANCE_TARGET"), "/"), slots: make(chan struct{}, briefAtOnce), results: map[int]string{}}
	if list := flag.Lookup("test.list").Value.String(); list != "" {
		return m.Run()
	}
	if err := shared.start(dir); err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		return 1
	}
	code := m.Run()
	if err := shared.stop(); err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		code = 1
	}
	fmt.Println(shared.summary())
	return code
}

// start builds and runs our server, or gets to know another one.
func (s *suite) start(dir string) error {
	s.url = s.target
	if s.target == "" {
		if s.binary = os.Getenv("SALLYPORT_CONFORMANCE_BINARY"); s.binary == "" {
			s.binary = filepath.Join(dir, "sallyport")
			if err := build(s.binary); err != nil {
				return err
			}
		}
		srv, err := launch(s.binary, filepath.Join(dir, "shared"), settings{})
		if err != nil {
			return err
		}
		s.server, s.url = srv, srv.api
	}
	if id, key, ok := strings.Cut(os.Getenv("SALLYPORT_CONFORMANCE_CLIENT"), ":"); ok {
		s.client = account{id, key}
		return nil
	}
	s.client = newAccount()
	if err := s.client.register(s.url); err != nil {
		if s.server != nil {
			_ = s.server.kill()
		}
		return fmt.Errorf("register a client, since SALLYPORT_CONFORMANCE_CLIENT=id:key names none: %w", err)
	}
	return nil
}

func (s *suite) stop() error {
	if s.server == nil {
		return nil
	}
	return s.server.kill()
}

// summary is the line at the end.
func (s *suite) summary() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var passed int
	var failed, skipped []string
	numbers := make([]int, 0, len(s.results))
	for n := range s.results {
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	for _, n := range numbers {
		switch what, why, _ := strings.Cut(s.results[n], ": "); what {
		case "passed":
			passed++
		case "failed":
			failed = append(failed, fmt.Sprint(n))
		default:
			skipped = append(skipped, fmt.Sprintf("%d (%s)", n, why))
		}
	}
	line := fmt.Sprintf("conformance: of %d statements %d passed, %d failed, %d skipped", len(numbers), passed, len(failed), len(skipped))
	if len(failed) > 0 {
		line += "; failed: " + strings.Join(failed, " ")
	}
	if len(skipped) > 0 {
		line += "; skipped: " + strings.Join(skipped, ", ")
	}
	return line
}

func (s *suite) record(n int, result string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.results[n] == "" {
		s.results[n] = result
	}
}

// conform runs the test of statement n.
func conform(t *testing.T, n int, p pace, body func(t testing.TB)) {
	t.Helper()
	if p != alone {
		t.Parallel()
	}
	if p == brief {
		shared.slots <- struct{}{}
		t.Cleanup(func() { <-shared.slots })
	}
	// Cleanups run in reverse: this one sees what the test's own ones say.
	t.Cleanup(func() {
		switch {
		case t.Failed():
			shared.record(n, "failed")
		case t.Skipped():
			shared.record(n, "skipped: for an unknown reason")
		default:
			shared.record(n, "passed")
		}
	})
	body = explain(n, body)
	reason, known := gaps[n]
	if !known || shared.target != "" {
		body(t)
		return
	}
	a := &attempt{TB: t}
	a.run(body)
	switch {
	case t.Skipped():
	case a.lost():
		shared.record(n, "skipped: known gap: "+reason)
		t.Skipf("known gap: %s\n%s", reason, strings.Join(a.complaints, "\n"))
	default:
		t.Errorf("statement %d is fulfilled: take it out of the table of gaps", n)
	}
}

// explain keeps the reason with which body skips.
func explain(n int, body func(testing.TB)) func(testing.TB) {
	return func(t testing.TB) { body(&told{TB: t, n: n}) }
}

// A told is a test whose reason to skip is kept for the summary.
type told struct {
	testing.TB
	n int
}

func (t *told) Skipf(format string, args ...any) {
	t.Helper()
	shared.record(t.n, "skipped: "+fmt.Sprintf(format, args...))
	t.TB.Skipf(format, args...)
}

// An attempt is a test that may fail without harm.
type attempt struct {
	testing.TB

	mu         sync.Mutex // guards the following
	failed     bool
	complaints []string
}

// run runs body in a goroutine of its own, which Fatal can end.
func (a *attempt) run(body func(testing.TB)) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		body(a)
	}()
	<-done
}

func (a *attempt) complain(text string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.failed = true
	a.complaints = append(a.complaints, text)
}

func (a *attempt) Error(args ...any)                 { a.complain(fmt.Sprint(args...)) }
func (a *attempt) Errorf(format string, args ...any) { a.complain(fmt.Sprintf(format, args...)) }
func (a *attempt) Fail()                             { a.complain("failed") }

// lost tells whether body has failed. Failed remains that of the test, which
// has not.
func (a *attempt) lost() bool { a.mu.Lock(); defer a.mu.Unlock(); return a.failed }

func (a *attempt) Fatal(args ...any) {
	a.complain(fmt.Sprint(args...))
	runtime.Goexit()
}

func (a *attempt) Fatalf(format string, args ...any) {
	a.complain(fmt.Sprintf(format, args...))
	runtime.Goexit()
}

func (a *attempt) FailNow() {
	a.complain("failed")
	runtime.Goexit()
}

// ours skips the test unless the server is one that the suite may start.
func ours(t testing.TB, why string) {
	t.Helper()
	if shared.target != "" {
		t.Skipf("%s, which needs a server that this suite starts", why)
	}
}

// elsewhere skips a statement that a test outside of this package shows. file is
// its path in the module; it must have what is looked for.
func elsewhere(t testing.TB, file, test, why string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", file))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), test) {
		t.Fatalf("%s has no %q: name the test that shows this statement", file, test)
	}
	t.Skipf("%s: shown by %s in %s", why, test, file)
}

// until waits for a condition.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	within(t, patience, what, ok)
}

// within is until with a time of its own.
func within(t testing.TB, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no %s within %s", what, limit)
		}
	}
}

// never watches for a while that something does not happen.
func never(t testing.TB, while time.Duration, what string, happened func() bool) {
	t.Helper()
	for deadline := time.Now().Add(while); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if happened() {
			t.Fatalf("%s", what)
		}
	}
}
