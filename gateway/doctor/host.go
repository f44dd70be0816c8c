package doctor

import (
	"bufio"
	"bytes"
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	wantFiles   = 65536   // two for each WebSocket, one for each TURN client, and some
	wantBuffer  = 8 << 20 // bytes asked of the kernel for each media socket
	goodClock   = 5 * time.Second
	usableClock = time.Minute
)

// checkFiles compares the limit of open files with what a busy day needs: that
// of the running process if it tells, or else our own.
func checkFiles(ctx context.Context, t *Target) result {
	const fix = "LimitNOFILE=65536 in the systemd unit, --ulimit nofile=65536 for a container"
	whose := "the running process"
	n, ok := processFiles(ctx, t)
	if !ok {
		var own syscall.Rlimit
		if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &own); err != nil {
			return skipped("the limit of open files cannot be read: %v", err).todo(fix)
		}
		n, whose = float64(own.Cur), "this command (the process does not tell its own)"
	}
	if n < wantFiles {
		return warned("%s may open %.0f files only: each WebSocket needs two", whose, n).todo(fix)
	}
	return passed("%s may open %.0f files", whose, n)
}

// processFiles reads the limit from the metrics of the running process.
func processFiles(ctx context.Context, t *Target) (n float64, ok bool) {
	if t.AdminURL == "" {
		return 0, false
	}
	c, done := direct()
	defer done()
	resp, body, err := get(ctx, c, t.AdminURL+"/metrics")
	if err != nil || resp.StatusCode != http.StatusOK {
		return 0, false
	}
	for lines := bufio.NewScanner(bytes.NewReader(body)); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if name == "rtcd_process_max_fds" {
			n, err := strconv.ParseFloat(value, 64)
			return n, err == nil && n > 0
		}
	}
	return 0, false
}

// checkBuffers compares what the kernel grants a UDP socket with what media
// sockets ask for.
func checkBuffers(_ context.Context, t *Target) result {
	var small []string
	for _, name := range []string{"rmem_max", "wmem_max"} {
		b, err := os.ReadFile(filepath.Join(t.Proc, "sys/net/core", name))
		if err != nil {
			return skipped("net.core.%s cannot be read here", name).todo("look at it on the host, outside of the container: sysctl net.core.rmem_max net.core.wmem_max")
		}
		n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
		if err != nil {
			return skipped("net.core.%s is not a number", name).todo("sysctl net.core.%s", name)
		}
		if n < wantBuffer {
			small = append(small, "net.core."+name+"="+strconv.Itoa(wantBuffer))
		}
	}
	if len(small) > 0 {
		return warned("the kernel grants UDP sockets less than 8 MiB: packets are lost in bursts").
			todo("sysctl -w %s; the same lines in /etc/sysctl.d/sallyport.conf keep it; then restart Sallyport", strings.Join(small, " "))
	}
	return passed("UDP sockets get 8 MiB each way")
}

// checkClock compares our clock with that of whoever answers for the site, on
// whose word the expiry of TURN credentials is judged.
func checkClock(ctx context.Context, t *Target) result {
	c, done := t.public(t.HTTPSAddress, false)
	defer done()
	began := time.Now()
	resp, _, err := get(ctx, c, t.origin()+t.PingPath)
	if err != nil {
		return unasked(err, t.HTTPSAddress, "proxy.ping")
	}
	date, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		return skipped("the answer has no Date").todo("something between here and Sallyport takes it away")
	}
	// The header was cut to a whole second, some time while we waited.
	skew := time.Since(began)/2 - time.Since(date.Add(500*time.Millisecond))
	const fix = "let systemd-timesyncd or chrony keep the time on both machines: timedatectl"
	switch skew = skew.Round(time.Second); {
	case skew.Abs() > usableClock:
		return failed("the site's clock differs by %s: certificates and TURN credentials are judged wrongly", skew).todo(fix)
	case skew.Abs() > goodClock:
		return warned("the site's clock differs by %s", skew).todo(fix)
	}
	return passed("the site's clock and ours agree")
}
