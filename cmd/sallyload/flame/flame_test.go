package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"syscall"
	"testing"
	"time"
)

// spin is what the profile of the tests is of. It goes by the time that it gets.
//
//go:noinline
func spin(d time.Duration) (n int) {
	for end := used() + d; used() < end; {
		for range 1_000_000 {
			n++
		}
	}
	return n
}

// used is the processor time of this program so far.
func used() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// record takes a profile of this program.
func record(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "cpu.pprof")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		t.Fatal(err)
	}
	spin(500 * time.Millisecond)
	pprof.StopCPUProfile()
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return file
}

// The runtime's own profiles can be read, and the function that used the time
// shows in the picture and with all its callers.
func TestRealProfile(t *testing.T) {
	file := record(t)
	report := filepath.Join(t.TempDir(), "report.json")
	if err := os.WriteFile(report, []byte(`{"loads":[{"load":"x","runs":[[{"packets":{"received":100}}]]}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	picture := filepath.Join(t.TempDir(), "flame.svg")
	var out bytes.Buffer
	if err := run([]string{"-title", "a < b", "-svg", picture, "-report", report, file}, &out); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "| **all** |") || !strings.Contains(out.String(), "100 %") {
		t.Errorf("table:\n%s", out.String())
	}
	svg, err := os.ReadFile(picture)
	if err != nil {
		t.Fatal(err)
	}
	for d := xml.NewDecoder(bytes.NewReader(svg)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("the picture is no XML: %v", err)
		}
	}
	for _, want := range []string{"flame.spin", "flame.TestRealProfile", "a &lt; b"} {
		if !strings.Contains(string(svg), want) {
			t.Errorf("the picture has no %q", want)
		}
	}
}

func TestGroups(t *testing.T) {
	for _, x := range []struct {
		stack string // innermost first
		want  string
	}{
		{"internal/runtime/syscall.Syscall6 syscall.sendto internal/poll.(*FD).WriteToInet4 github.com/pion/ice/v2.(*candidateBase).writeTo", "kernel: sending"},
		{"internal/runtime/syscall.Syscall6 sallyport/sfu/internal/batch.sendmmsg sallyport/sfu.(*down).flush", "kernel: sending"},
		{"internal/runtime/syscall.Syscall6 syscall.recvfrom internal/poll.(*FD).ReadFromInet4", "kernel: receiving"},
		{"internal/runtime/syscall.Syscall6 syscall.RawSyscall6 sallyport/sfu/internal/batch.(*fastBatch).receive internal/poll.(*FD).RawRead", "kernel: receiving"},
		{"runtime.memmove github.com/pion/srtp/v2.(*Context).encryptRTP sallyport/sfu.(*down).forward", "SRTP"},
		{"runtime.nextFreeFast runtime.mallocgc github.com/pion/srtp/v2.(*Context).encryptRTP", "memory: allocation and garbage collection"},
		{"runtime.scanobject runtime.gcDrain runtime.gcBgMarkWorker", "memory: allocation and garbage collection"},
		{"runtime.futex runtime.notesleep runtime.stopm runtime.findRunnable", "waking and switching goroutines"},
		{"sallyport/sfu.(*fanout).run", "forwarding, pion/webrtc"},
		{"crypto/internal/fips140/aes/gcm.encrypt crypto/tls.(*Conn).Write", "TLS and TURN"},
		{"github.com/pion/dtls/v2.(*Conn).Write", "ICE, DTLS, SCTP"},
		{"github.com/pion/interceptor/pkg/nack.(*ResponderInterceptor).BindLocalStream", "RTCP and interceptors"},
		{"main.main", "everything else"},
	} {
		if got := groupOf(strings.Fields(x.stack)).name; got != x.want {
			t.Errorf("%s: %s, want %s", x.stack, got, x.want)
		}
	}
}

func TestShorten(t *testing.T) {
	for name, want := range map[string]string{
		"github.com/pion/ice/v2.(*Conn).Write":   "ice/v2.(*Conn).Write",
		"sallyport/sfu.(*up).run":                "sfu.(*up).run",
		"runtime.mcall":                          "runtime.mcall",
		"v2.x":                                   "v2.x",
		"sallyport/sfu.aVeryLongNameOfAFunction": "sfu.aVeryLongNameOfA",
	} {
		if got := shorten(name, 20); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

func TestErrors(t *testing.T) {
	file := record(t)
	report := filepath.Join(t.TempDir(), "report.json")
	if err := os.WriteFile(report, []byte(`{"loads":[{"load":"x","runs":[[]]}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct{ args, want string }{
		{"", "want one profile"},
		{"/does/not/exist", "no such file"},
		{report, "cut or damaged"},
		{"-report " + report + " -load y " + file, `no load "y"`},
		{"-report " + file + " " + file, "invalid character"},
		{"-svg /does/not/exist/x.svg " + file, "no such file"},
	} {
		if err := run(strings.Fields(x.args), io.Discard); err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s: %v, want %q", x.args, err, x.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("\x12\x06\x0a\x01\x01\x12\x01\x05\x22\x06\x08\x01\x22\x02\x08\x01\x2a\x04\x08\x01\x10\x01\x32\x00\x32\x01a"))
	f.Fuzz(func(t *testing.T, b []byte) {
		samples, err := parse(b)
		if err != nil {
			return
		}
		if err := draw(io.Discard, "", samples); err != nil {
			t.Fatal(err)
		}
	})
}
