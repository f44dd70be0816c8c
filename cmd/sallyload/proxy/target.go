package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"text/template"
	"time"
)

//go:embed configs
var configFiles embed.FS

// configs says how each proxy is configured and started; FILE stands for its
// configuration.
var configs = map[string]struct {
	file string
	args []string
}{
	"sallyport": {"sallyport.yaml", []string{"serve", "-config", "FILE"}},
	"nginx":     {"nginx.conf", []string{"-e", "stderr", "-c", "FILE"}},
	"caddy":     {"Caddyfile", []string{"run", "--adapter", "caddyfile", "--config", "FILE"}},
}

// A target is one running proxy.
type target struct {
	name  string
	addr  string
	admin string // of Sallyport
	cmd   *exec.Cmd
	done  chan struct{} // closed when it has ended
}

// start runs the program called name with a configuration of its own.
func (b *bench) start(ctx context.Context, name string) (*target, error) {
	addr, err := freeAddress()
	if err != nil {
		return nil, err
	}
	adminAddr, err := freeAddress()
	if err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(b.dir)
	if err != nil {
		return nil, err
	}
	config := filepath.Join(dir, configs[name].file)
	if err := b.configure(name, config, dir, addr, adminAddr); err != nil {
		return nil, err
	}
	var args []string
	for _, a := range configs[name].args {
		args = append(args, strings.ReplaceAll(a, "FILE", config))
	}
	log, err := os.Create(filepath.Join(dir, name+".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	t := &target{name: name, addr: addr, admin: adminAddr, cmd: exec.Command(b.programs[name], args...), done: make(chan struct{})}
	t.cmd.Stdout, t.cmd.Stderr = log, log
	t.cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	if err := t.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = t.cmd.Wait()
		close(t.done)
	}()
	if err := t.ready(ctx); err != nil {
		t.stop()
		out, _ := os.ReadFile(log.Name())
		return nil, fmt.Errorf("%w\n%s", err, out)
	}
	return t, nil
}

func (b *bench) configure(name, file, dir, addr, adminAddr string) error {
	parsed, err := template.ParseFS(configFiles, "configs/"+configs[name].file)
	if err != nil {
		return err
	}
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(addr)
	if err == nil {
		err = parsed.Execute(out, map[string]string{"Dir": dir, "Addr": addr, "Port": port, "Admin": adminAddr, "Upstream": b.upstreamAddr})
	}
	return errors.Join(err, out.Close())
}

// ready waits until the proxy answers with what the upstream says.
func (t *target) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		resp, err := client.Get("https://" + t.addr + "/small")
		if err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
			client.CloseIdleConnections()
			if resp.StatusCode == 200 {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return errors.New("does not answer")
		case <-t.done:
			return errors.New("ended")
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// stop ends the proxy: in order, and if that takes long, at once.
func (t *target) stop() {
	_ = t.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-t.done:
	case <-time.After(5 * time.Second):
		_ = t.cmd.Process.Kill()
		<-t.done
	}
}

// freeAddress is one on which nobody listens now.
func freeAddress() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return ln.Addr().String(), ln.Close()
}

// waitFor waits until somebody listens on addr.
func waitFor(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			return c.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("nobody listens on %s", addr)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
