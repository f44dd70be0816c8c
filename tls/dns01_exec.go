package tls

import (
	"context"
	"fmt"
	"os/exec"
	"syscall"
	"time"
)

// execHook has a program make the records.
type execHook []string

// execOutput is how much of what the program writes is kept for the error.
const execOutput = 1 << 10

func (p execHook) present(ctx context.Context, _, fqdn, value string) error {
	return p.run(ctx, "present", fqdn, value)
}

func (p execHook) cleanUp(ctx context.Context, _, fqdn, value string) error {
	return p.run(ctx, "cleanup", fqdn, value)
}

func (p execHook) run(ctx context.Context, args ...string) error {
	c := exec.CommandContext(ctx, p[0], append(p[1:len(p):len(p)], args...)...)
	out := &tail{}
	c.Stdout, c.Stderr = out, out
	c.WaitDelay = 5 * time.Second                       // for what the program has started and left
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // so that it ends with all it has started
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	err := c.Run()
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("run %s %s: %w: %q", p[0], args[0], err, out.b)
	}
	return nil
}

// A tail keeps the last bytes of what is written.
type tail struct{ b []byte }

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if over := len(t.b) - execOutput; over > 0 {
		t.b = append(t.b[:0], t.b[over:]...)
	}
	return len(p), nil
}
