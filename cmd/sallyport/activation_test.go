package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
)

func TestSocketNames(t *testing.T) {
	for _, test := range []struct {
		count, names, want string
	}{
		{"0", "", "[] <nil>"},
		{"2", "https:udp", "[https udp] <nil>"},
		{"2", "https", `[] 2 sockets are passed with the names "https": each needs one (FileDescriptorName=)`},
		{"1", "", `[] 1 sockets are passed with the names "": each needs one (FileDescriptorName=)`},
		{"many", "", `[] LISTEN_FDS is "many", which is not a number of sockets`},
	} {
		got, err := socketNames(test.count, test.names)
		if s := fmt.Sprint(got, err); s != test.want {
			t.Errorf("%+v: %s", test, s)
		}
	}
}

// TestSocketActivation: the process serves on what it is given, so that nobody
// finds a port closed while it restarts, and needs no rights for it.
func TestSocketActivation(t *testing.T) {
	t.Parallel()
	p := newProcess(t, "http://"+startMattermost(t, "one").address)
	var want []string
	for range 2 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		p.must(err)
		f, err := l.(*net.TCPListener).File()
		p.must(err)
		want = append(want, l.Addr().String())
		p.must(l.Close())
		defer f.Close()
		p.files = append(p.files, f)
	}
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	p.must(err)
	f, err := c.(*net.UDPConn).File()
	p.must(err)
	want = append(want, c.LocalAddr().String())
	p.must(c.Close())
	defer f.Close()
	p.files = append(p.files, f)
	// Nobody knows the process's id before it is there: a shell does then.
	p.command = []string{"sh", "-c", `LISTEN_PID=$$ exec "$@"`, "-"}
	p.environ = []string{"LISTEN_FDS=3", "LISTEN_FDNAMES=https:admin:udp"}
	early, err := net.Dial("tcp", want[0]) // and waits
	p.must(err)
	defer early.Close()
	p.start()
	if got := []string{p.HTTPS, p.Admin, p.UDP}; strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("serves on %v, want %v", got, want)
	}
	p.visits(visitor("h2"), "one GET ")
	if _, err := fmt.Fprint(early, "GET / HTTP/1.0\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Error(err)
	}
	if n, err := early.Read(make([]byte, 64)); n == 0 {
		t.Errorf("who came before it was there: %v", err)
	}
	a, b, _ := p.call()
	p.hears(b, a)
}

// TestSystemdSocketActivate: the same by systemd's own tool.
func TestSystemdSocketActivate(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("systemd-socket-activate"); err != nil {
		t.Skipf("SKIPPED, NOT TESTED: %v", err)
	}
	p := newProcess(t, "http://"+startMattermost(t, "one").address)
	https, admin := freeAddress(t), freeAddress(t)
	sallyport, err := exec.LookPath("sallyport")
	p.must(err)
	p.command = []string{"systemd-socket-activate", "-E", "PATH", "--fdname=https:admin", "-l", https, "-l", admin}
	p.name = sallyport
	p.serve()
	p.says("Listening on")
	first, err := net.Dial("tcp", https) // starts it
	p.must(err)
	defer first.Close()
	p.must(json.Unmarshal([]byte(p.says(`"msg":"serving"`)), p))
	if p.HTTPS != https || p.Admin != admin {
		t.Errorf("serves on %s and %s, want %s and %s", p.HTTPS, p.Admin, https, admin)
	}
	p.visits(visitor("h2"), "one GET ")
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// TestSocketsThatAreNotOurs: without our process id they are somebody else's.
func TestSocketsThatAreNotOurs(t *testing.T) {
	t.Setenv("LISTEN_PID", "1")
	t.Setenv("LISTEN_FDS", "1")
	t.Setenv("LISTEN_FDNAMES", "https")
	got, err := inheritedSockets()
	if len(got) != 0 || err != nil {
		t.Errorf("%v, %v", got, err)
	}
	if os.Getenv("LISTEN_FDS") != "" {
		t.Error("a child would take them")
	}
}
