package gateway_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// others returns what tells, later, which share of the machine others have taken
// since (proc(5): /proc/stat, in ticks of 10 ms).
func (s *siege) others(t *testing.T) func() float64 {
	t.Helper()
	read := func() (all time.Duration) {
		stat, err := os.ReadFile("/proc/stat")
		must(t, err)
		var ticks [8]int64 // user, nice, system, idle, iowait, irq, softirq, steal
		_, err = fmt.Sscanf(string(stat), "cpu %d %d %d %d %d %d %d %d", &ticks[0], &ticks[1], &ticks[2], &ticks[3], &ticks[4], &ticks[5], &ticks[6], &ticks[7])
		must(t, err)
		for i, n := range ticks {
			if i != 3 && i != 4 {
				all += time.Duration(n) * 10 * time.Millisecond
			}
		}
		for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
			var used syscall.Rusage
			must(t, syscall.Getrusage(who, &used))
			all -= time.Duration(used.Utime.Nano() + used.Stime.Nano())
		}
		return all - s.cpu()
	}
	before, began := read(), time.Now()
	return func() float64 {
		return float64(read()-before) / float64(time.Since(began)) / float64(runtime.NumCPU())
	}
}

// metric is a value that the product shows at /metrics.
func (x *target) metric(ctx context.Context, name string) (float64, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+x.Admin+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	defer func() { _ = response.Body.Close() }()
	page, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(page)) {
		if rest, found := strings.CutPrefix(line, name+" "); found {
			return strconv.ParseFloat(strings.TrimSpace(rest), 64)
		}
	}
	return 0, fmt.Errorf("/metrics lacks %s", name)
}

// reaches fails unless a metric is soon at least n.
func (x *target) reaches(t *testing.T, name string, n int) {
	t.Helper()
	ctx := within(t)
	for {
		got, err := x.metric(ctx, name)
		if err != nil {
			t.Fatalf("%s is %v, want %d: %v", name, got, n, err)
		}
		if int(got) >= n {
			return
		}
		time.Sleep(10 * time.Millisecond) // to look costs the product something, too
	}
}

// demuxPending counts the connections of which the shared port does not know
// yet what they are.
const demuxPending = "sallyport_demux_pending_connections"
