package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// commanded runs `sallyport serve` with a socket for commands. The returned function
// gives it one, and returns the exit code and what was printed.
func commanded(t *testing.T, upstream string) (*process, func(args ...string) (int, string)) {
	t.Helper()
	dir, err := os.MkdirTemp("", "sallyport") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	p := newProcess(t, upstream)
	p.socket = filepath.Join(dir, "admin.sock")
	p.configure(p.configuration(upstream))
	p.serve()
	p.says(`"msg":"serving"`)
	return p, func(args ...string) (int, string) {
		command := exec.Command("sallyport", args...)
		out, _ := command.CombinedOutput()
		return command.ProcessState.ExitCode(), string(out)
	}
}

func TestReloadCommand(t *testing.T) {
	mm := startMattermost(t, "one")
	p, run := commanded(t, "http://"+mm.address)
	good := p.configuration("http://" + mm.address)
	expect := func(code int, want string) {
		t.Helper()
		if got, out := run("reload", "-config", p.file); got != code || !regexp.MustCompile(`(?s)^`+want+`$`).MatchString(out) {
			t.Errorf("exit code %d, want %d, and\n%s", got, code, out)
		}
	}
	expect(0, "nothing to change\n")
	p.configure(strings.Replace(good, "level: info", "level: debug", 1) + "domain2: x\n")
	// The file is faulty, the running gateway is found where it was said to be.
	expect(1, `sallyport reload: nothing was changed:\n\S*config\.yaml:\d+:1: unknown key "domain2".*\n`)
	p.configure(strings.Replace(strings.Replace(good, "level: info", "level: debug", 1), "https: \"127.0.0.1:0\"", "https: \"127.0.0.1:1\"", 1))
	expect(0, "applied:  log.level: info -> debug\nneeds a restart:  listen.https: 127.0.0.1:0 -> 127.0.0.1:1\n")
	p.configure(strings.Replace(good, p.socket, p.socket+"2", 1)) // where nobody listens yet
	expect(1, `sallyport reload: nothing was changed:\nask the running gateway: dial .*: no such file or directory\nit does not run, .*: name it with -socket, .*\n`)
	if info, err := os.Stat(p.socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v, %v", info, err)
	}
	// Another one does not take it over; the end of the process takes it along.
	second := newProcess(t, "http://"+mm.address)
	second.socket = p.socket
	second.configure(second.configuration("http://" + mm.address))
	second.serve()
	second.ends(1)
	second.says("another process answers there")
	if _, err := os.Stat(p.socket); err != nil {
		t.Error(err)
	}
	_ = p.running.Signal(os.Interrupt)
	p.ends(0)
	if _, err := os.Stat(p.socket); err == nil {
		t.Error("the socket is left behind")
	}
	if code, out := run("upstream", "list", "-socket", p.socket); code != 1 || !strings.Contains(out, "ask the running gateway: dial unix") {
		t.Errorf("with nobody there: %d %s", code, out)
	}
}

func TestUpstreamCommand(t *testing.T) {
	one, two := startMattermost(t, "one"), startMattermost(t, "two")
	p, run := commanded(t, fmt.Sprintf("[http://%s, http://%s]", one.address, two.address))
	expect := func(code int, want string, args ...string) {
		t.Helper()
		got, out := run(append(args[:2:2], append([]string{"-socket", p.socket}, args[2:]...)...)...)
		out = strings.NewReplacer(one.address, "{one}", two.address, "{two}").Replace(out)
		out = regexp.MustCompile(` +`).ReplaceAllString(out, " ")
		if got != code || out != want {
			t.Errorf("%v: exit code %d, want %d, and\n%s", args, got, code, out)
		}
	}
	const head = "UPSTREAM STATE REQUESTS WEBSOCKETS REASON\n"
	expect(0, head+"http://{one} up 0 0 -\nhttp://{two} up 0 0 -\n", "upstream", "list")
	expect(0, head+"http://{one} drained 0 0 -\nhttp://{two} up 0 0 -\n", "upstream", "drain", "-wait", "20s", "http://"+one.address)
	expect(1, "sallyport upstream drain: {two}: no other upstream would be left to answer; with -last it is drained all the same\n", "upstream", "drain", two.address)
	expect(1, "sallyport upstream drain: \"http://x\" is not an upstream: there are http://{one}, http://{two}\n", "upstream", "drain", "http://x")
	if code, _ := run("reload", "-socket", p.socket); code != 0 {
		t.Errorf("reload: exit code %d", code)
	}
	expect(0, head+"http://{one} drained 0 0 -\nhttp://{two} up 0 0 -\n", "upstream", "list")
	expect(0, head+"http://{one} drained 0 0 -\nhttp://{two} drained 0 0 -\n", "upstream", "drain", "-last", "-wait", "20s", two.address)
	expect(0, head+"http://{one} drained 0 0 -\nhttp://{two} up 0 0 -\n", "upstream", "undrain", two.address)
	expect(0, head+"http://{one} up 0 0 -\nhttp://{two} up 0 0 -\n", "upstream", "undrain", "http://"+one.address+"/")
	for _, wrong := range [][]string{{"upstream"}, {"upstream", "stop"}, {"upstream", "drain"}, {"upstream", "list", "x"}} {
		if code, _ := run(wrong...); code != 2 {
			t.Errorf("%v: exit code %d", wrong, code)
		}
	}
}
