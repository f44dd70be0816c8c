package sfu

import (
	"bytes"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestUsefulAddressesOfAMachine asks the kernel, in a network namespace with the
// interfaces of a Docker host behind a bridge.
func TestUsefulAddressesOfAMachine(t *testing.T) {
	const inside = "SFU_TEST_NAMESPACE"
	if os.Getenv(inside) == "" {
		cmd := exec.Command(os.Args[0], "-test.run", "^TestUsefulAddressesOfAMachine$", "-test.v")
		cmd.Env = append(os.Environ(), inside+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
			UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
		}
		out, err := cmd.CombinedOutput()
		switch {
		case strings.Contains(string(out), "--- SKIP") || err != nil && len(out) == 0:
			t.Skipf("no network namespace here: %v %s", err, out)
		case err != nil:
			t.Errorf("in the namespace: %v\n%s", err, out)
		}
		return
	}
	ip := func(args string) {
		t.Helper()
		if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			t.Skipf("ip %s: %v %s", args, err, out)
		}
	}
	look := func(want ...string) {
		t.Helper()
		got, err := usefulAddresses(false)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, texts(got)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	ip("link set lo up")
	look("127.0.0.1")
	var log bytes.Buffer
	socks, err := Listen(Config{UDP: ":0"})
	if err != nil {
		t.Fatal(err)
	}
	defer socks.Close()
	if _, err := New(socks, Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}); err != nil || !strings.Contains(log.String(), "nobody but this machine") {
		t.Errorf("%v; log: %q, want a warning", err, &log)
	}
	for name, address := range map[string]string{"docker0": "172.17.0.1/16", "br-0123456789ab": "172.18.0.1/16", "br-ex": "10.9.0.2/24", "br-lan": "169.254.9.9/16"} {
		ip("link add " + name + " type bridge")
		ip("address add " + address + " dev " + name)
		ip("link set " + name + " up")
	}
	look("10.9.0.2")
	ip("route add default via 172.18.0.2")
	look("10.9.0.2", "172.18.0.1")
	ip("link set br-ex down")
	look("172.18.0.1")
}
