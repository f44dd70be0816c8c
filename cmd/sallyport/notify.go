package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/gateway/admin"
)

// statusInterval is how often the service manager is told how we are, if that has
// changed, and that we live, unless it wants to hear that more often.
const statusInterval = 10 * time.Second

// notifySystemd tells the service manager, if there is one, about our state
// (sd_notify(3)). It is a courtesy: nothing depends on whether it arrives.
func notifySystemd(state string) {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return
	}
	defer conn.Close()
	_, _ = conn.Write([]byte(state))
}

// notifyReloading tells it that what it knew of us ends now. READY=1 must follow.
func notifyReloading() {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err == nil {
		notifySystemd(fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", now.Nano()/1000))
	}
}

// notifyStopping tells it that we stop, and to wait for so long even if it is set
// to wait for less.
func notifyStopping(limit time.Duration) {
	notifySystemd(fmt.Sprintf("STOPPING=1\nEXTEND_TIMEOUT_USEC=%d", limit.Microseconds()))
}

// watchdogTime is how long the service manager waits for a sign of life before it
// restarts this process; 0 if it does not.
func watchdogTime() time.Duration {
	if pid := os.Getenv("WATCHDOG_PID"); pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0
	}
	usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || usec <= 0 {
		return 0
	}
	return time.Duration(usec) * time.Microsecond
}

// A reporter tells the service manager how we are.
type reporter struct {
	status   func() string
	alive    func(context.Context) error // asked if there is a watchdog
	watchdog time.Duration               // 0: none
	logger   *slog.Logger
	tell     func(state string)
}

// run reports until ctx ends. A sign of life is given only after alive has found
// one: a process that is locked up is restarted.
func (r *reporter) run(ctx context.Context) {
	every := statusInterval
	if r.watchdog > 0 {
		every = min(every, r.watchdog/4)
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	told := ""
	for {
		if r.watchdog > 0 {
			r.signOfLife(ctx)
		}
		if s := r.status(); s != told {
			r.tell("STATUS=" + s)
			told = s
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (r *reporter) signOfLife(ctx context.Context) {
	limit, cancel := context.WithTimeout(ctx, r.watchdog/2)
	defer cancel()
	err := r.alive(limit)
	switch {
	case err == nil:
		r.tell("WATCHDOG=1")
	case ctx.Err() == nil:
		r.logger.Error("no sign of life for the service manager", "err", err)
	}
}

// askHealth returns a function that asks the admin listener whether we live, the
// way that others ask.
func askHealth(address string) func(context.Context) error {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	return func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/healthz", nil)
		if err != nil {
			return err
		}
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		text, err := io.ReadAll(io.LimitReader(response.Body, 1<<10))
		if err == nil && response.StatusCode != http.StatusOK {
			err = fmt.Errorf("%s: %s", response.Status, text)
		}
		return err
	}
}

// statusLine sums s up in one line.
func statusLine(s admin.Status) string {
	up := 0
	for _, u := range s.Upstreams {
		if u.Up {
			up++
		}
	}
	line := fmt.Sprintf("%s: %d WebSockets, %d of %d upstreams up", s.State, s.WebSockets, up, len(s.Upstreams))
	if s.Media.Enabled {
		line += fmt.Sprintf(", %d sessions in %d calls (%d relayed)", s.Media.Sessions, s.Media.Calls, s.Media.Paths["relay"])
	}
	if !s.Certificate.Ready {
		return line + ", no certificate"
	}
	return line + fmt.Sprintf(", certificate for %d days", s.Certificate.DaysLeft)
}
