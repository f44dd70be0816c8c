package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	startTime = 20 * time.Second // for a command to announce itself
	stopTime  = 20 * time.Second // for it to end after SIGTERM
	tailLines = 10               // of its output, to explain why it ended
)

var (
	errNotAnnounced = errors.New("the target announces no such address")
	errEnded        = errors.New("the command ended")
	errSilent       = errors.New("the command does not say where its API is")
)

// A target is a server to be put under load.
type target struct {
	name string   // what the command line called it
	url  string   // of the API; "" = the command says
	argv []string // command to start; nil = it runs
	pids []int    // of one that runs
}

// parseTarget reads what usage describes.
func parseTarget(name string) (target, error) {
	words, err := split(name)
	if err != nil {
		return target{}, fmt.Errorf("parse target %q: %w", name, err)
	}
	t := target{name: name}
	if len(words) > 0 && (strings.HasPrefix(words[0], "http://") || strings.HasPrefix(words[0], "https://")) {
		t.url, words = words[0], words[1:]
		if base, fragment, has := strings.Cut(t.url, "#"); has {
			list, is := strings.CutPrefix(fragment, "pid=")
			if t.pids, err = parsePIDs(list); err != nil || !is || len(words) > 0 {
				return target{}, fmt.Errorf("parse target %q: want #pid=NUMBER and no command", name)
			}
			t.url = base
		}
	}
	if len(words) > 0 {
		t.argv = words
	} else if t.url == "" {
		return target{}, fmt.Errorf("parse target %q: neither URL nor command", name)
	}
	return t, nil
}

// split cuts a command line at blanks outside of quotes.
func split(line string) (words []string, err error) {
	var word strings.Builder
	quote, open := rune(0), false
	for _, c := range line {
		switch {
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(c)
		case c == '\'' || c == '"':
			quote, open = c, true
		case c == ' ' || c == '\t':
			if open || word.Len() > 0 {
				words = append(words, word.String())
			}
			word.Reset()
			open = false
		default:
			word.WriteRune(c)
		}
	}
	if quote != 0 {
		return nil, errors.New("a quote is not closed")
	}
	if open || word.Len() > 0 {
		words = append(words, word.String())
	}
	return words, nil
}

// A server is a target that runs.
type server struct {
	url       string
	pids      []int
	announced map[string]string // addresses, by name
	stop      func() error      // ends it if it was started here
}

// start makes the target run. The server's stop is the caller's.
func (t target) start(ctx context.Context) (*server, error) {
	s := &server{url: t.url, pids: t.pids, stop: func() error { return nil }}
	if t.argv == nil {
		return s, nil
	}
	command := exec.Command(t.argv[0], t.argv[1:]...)
	out := &watch{found: make(chan map[string]string, 1)}
	command.Stdout, command.Stderr = out, out
	command.WaitDelay = time.Second
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("start target: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	s.pids = []int{command.Process.Pid}
	s.stop = func() error { return stop(command.Process, ended) }
	ctx, cancel := context.WithTimeoutCause(ctx, startTime, errSilent)
	defer cancel()
	up := out.found
	if t.url != "" {
		up = make(chan map[string]string, 1)
		go func() { answers(ctx, t.url, up) }()
	}
	select {
	case s.announced = <-up:
		if t.url == "" {
			s.url = "http://" + s.announced["api"]
		}
		if list := s.announced["pids"]; list != "" {
			var err error
			if s.pids, err = parsePIDs(list); err != nil {
				return nil, errors.Join(fmt.Errorf("start target %q: %w", t.name, err), s.stop())
			}
		}
		return s, nil
	case err := <-ended:
		return nil, fmt.Errorf("start target %q: %w: %v\n%s", t.name, errEnded, err, out.tail())
	case <-ctx.Done():
		return nil, errors.Join(fmt.Errorf("start target %q: %w\n%s", t.name, context.Cause(ctx), out.tail()), s.stop())
	}
}

// stop ends a process that was started here.
func stop(p *os.Process, ended <-chan error) error {
	_ = p.Signal(syscall.SIGTERM) // an error means that it has ended
	late := time.NewTimer(stopTime)
	defer late.Stop()
	select {
	case <-ended: // whatever its status: it was told to
		return nil
	case <-late.C:
		_ = p.Kill()
		<-ended
		return fmt.Errorf("stop target: it did not end within %s of SIGTERM", stopTime)
	}
}

// answers reports to up when the API answers anything at all.
func answers(ctx context.Context, base string, up chan<- map[string]string) {
	address, err := url.JoinPath(base, "version")
	for err == nil && ctx.Err() == nil {
		request, _ := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
		response, failed := http.DefaultClient.Do(request)
		if failed == nil {
			_ = response.Body.Close()
			up <- nil
			return
		}
		sleep(ctx, pollInterval)
	}
}

// A watch reads the output of a target for the line that announces its API.
type watch struct {
	found chan map[string]string // capacity 1

	mu    sync.Mutex // guards the following
	line  []byte     // not ended yet
	last  []string
	heard bool
}

// Write implements io.Writer.
func (w *watch) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.line = append(w.line, b...)
	for {
		line, rest, ended := strings.Cut(string(w.line), "\n")
		if !ended {
			w.line = w.line[:min(len(w.line), bufio.MaxScanTokenSize)]
			return len(b), nil
		}
		w.line = []byte(rest)
		w.last = append(w.last, line)
		w.last = w.last[max(0, len(w.last)-tailLines):]
		if names := announcement(line); names != nil && !w.heard {
			w.heard = true
			w.found <- names
		}
	}
}

func (w *watch) tail() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(append(slices.Clone(w.last), string(w.line)), "\n")
}

// announcement returns the addresses of a line that has one named api: a JSON
// object, or words of the form name=value. nil for any other line.
func announcement(line string) map[string]string {
	names := map[string]string{}
	var object map[string]any
	if json.Unmarshal([]byte(line), &object) == nil {
		for name, value := range object {
			if text, is := value.(string); is {
				names[name] = text
			}
		}
	} else {
		for word := range strings.FieldsSeq(line) {
			if name, value, is := strings.Cut(word, "="); is {
				names[name] = value
			}
		}
	}
	if names["api"] == "" {
		return nil
	}
	return names
}
