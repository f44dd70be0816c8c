package rtcd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// loadEvery is the time between two samples of the CPU counters.
const loadEvery = time.Second

// minIdle is the fewest idle cores that are reported: one clock tick a second,
// the least the kernel's counters can show. It keeps the load finite.
const minIdle = 0.01

// ticks is the unit of /proc/stat, USER_HZ, which is 100 on every Linux.
const ticks = 100

// A cpuLoad measures how busy this machine is for GET /system: the reciprocal
// of the idle cores, as rtcd reports it, so that plugins can compare us with
// other hosts. A container's CPU limit counts as the end of the machine.
type cpuLoad struct {
	fsys  fs.FS // the root of the file system
	cores int

	value atomic.Uint64 // math.Float64bits; always finite
}

func newCPULoad(fsys fs.FS, cores int) *cpuLoad {
	l := &cpuLoad{fsys: fsys, cores: cores}
	// Until there are two samples, the load average of the last minute tells
	// more than a 0 would: a fresh process on a busy machine is not idle.
	idle := float64(cores)
	if text, err := fs.ReadFile(fsys, "proc/loadavg"); err == nil {
		if one, err := strconv.ParseFloat(firstField(string(text)), 64); err == nil {
			idle -= one
		}
	}
	l.set(idle)
	return l
}

// load returns 1 / idle cores: finite and above zero.
func (l *cpuLoad) load() float64 { return math.Float64frombits(l.value.Load()) }

func (l *cpuLoad) set(idle float64) {
	if math.IsNaN(idle) {
		return
	}
	idle = min(max(idle, minIdle), float64(l.cores))
	l.value.Store(math.Float64bits(1 / idle))
}

// run samples until ctx ends.
func (l *cpuLoad) run(ctx context.Context) {
	tick := time.NewTicker(loadEvery)
	defer tick.Stop()
	prev, err := l.sample(time.Now())
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			cur, curErr := l.sample(now)
			if err == nil && curErr == nil {
				l.set(cur.idleSince(prev))
			}
			prev, err = cur, curErr
		}
	}
}

// A cpuSample is the state of the kernel's counters at one time.
type cpuSample struct {
	at     time.Time
	idle   float64             // seconds, of all cores
	limits map[string]cpuLimit // of the control groups we are in, by path
}

// A cpuLimit is what one control group may use and has used.
type cpuLimit struct {
	cores float64
	used  float64 // seconds
}

// idleSince returns the cores that were free between two samples: idle ones of
// the machine, or fewer if a control group is nearer to its limit.
func (s cpuSample) idleSince(prev cpuSample) float64 {
	wall := s.at.Sub(prev.at).Seconds()
	if wall <= 0 {
		return math.NaN()
	}
	idle := (s.idle - prev.idle) / wall
	for group, limit := range s.limits {
		if old, known := prev.limits[group]; known {
			idle = min(idle, limit.cores-(limit.used-old.used)/wall)
		}
	}
	return idle
}

func (l *cpuLoad) sample(at time.Time) (cpuSample, error) {
	text, err := fs.ReadFile(l.fsys, "proc/stat")
	if err != nil {
		return cpuSample{}, fmt.Errorf("read CPU counters: %w", err)
	}
	fields := strings.Fields(string(text)) // cpu user nice system idle …
	if len(fields) < 5 || fields[0] != "cpu" {
		return cpuSample{}, errors.New("read CPU counters: no line cpu")
	}
	idle, err := strconv.ParseFloat(fields[4], 64)
	if err != nil {
		return cpuSample{}, fmt.Errorf("read CPU counters: %w", err)
	}
	return cpuSample{at: at, idle: idle / ticks, limits: l.limits()}, nil
}

// limits reads the CPU limits of our control groups and of those around them.
// What cannot be read does not limit us.
func (l *cpuLoad) limits() map[string]cpuLimit {
	text, err := fs.ReadFile(l.fsys, "proc/self/cgroup")
	if err != nil {
		return nil
	}
	all := make(map[string]cpuLimit)
	for line := range strings.Lines(string(text)) { // id:controllers:path
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		read := l.limit1
		switch {
		case parts[1] == "":
			read = l.limit2
		case !strings.Contains(","+parts[1]+",", ",cpu,"):
			continue
		}
		for group := path.Clean("/" + parts[2]); ; group = path.Dir(group) {
			if limit, ok := read(group); ok {
				all[parts[1]+":"+group] = limit
			}
			if group == "/" {
				break
			}
		}
	}
	return all
}

// limit2 reads a group of cgroup v2.
func (l *cpuLoad) limit2(group string) (cpuLimit, bool) {
	dir := path.Join("sys/fs/cgroup", group)
	max, ok1 := l.numbers(path.Join(dir, "cpu.max")) // quota period; quota may be the word max
	text, err := fs.ReadFile(l.fsys, path.Join(dir, "cpu.stat"))
	_, used, ok2 := strings.Cut(string(text), "usage_usec ")
	if !ok1 || len(max) != 2 || max[1] <= 0 || err != nil || !ok2 {
		return cpuLimit{}, false
	}
	usec, err := strconv.ParseFloat(firstField(used), 64)
	return cpuLimit{cores: max[0] / max[1], used: usec / 1e6}, err == nil
}

// limit1 reads a group of the cpu and cpuacct controllers of cgroup v1.
func (l *cpuLoad) limit1(group string) (cpuLimit, bool) {
	quota, ok1 := l.numbers(path.Join("sys/fs/cgroup/cpu", group, "cpu.cfs_quota_us"))
	period, ok2 := l.numbers(path.Join("sys/fs/cgroup/cpu", group, "cpu.cfs_period_us"))
	used, ok3 := l.numbers(path.Join("sys/fs/cgroup/cpuacct", group, "cpuacct.usage"))
	if !ok1 || !ok2 || !ok3 || quota[0] <= 0 || period[0] <= 0 { // a quota of -1 is none
		return cpuLimit{}, false
	}
	return cpuLimit{cores: quota[0] / period[0], used: used[0] / 1e9}, true
}

// numbers reads a file of numbers, at least one.
func (l *cpuLoad) numbers(name string) ([]float64, bool) {
	text, err := fs.ReadFile(l.fsys, name)
	if err != nil {
		return nil, false
	}
	var all []float64
	for _, field := range strings.Fields(string(text)) {
		n, err := strconv.ParseFloat(field, 64)
		if err != nil {
			return nil, false
		}
		all = append(all, n)
	}
	return all, len(all) > 0
}

func firstField(s string) string {
	if fields := strings.Fields(s); len(fields) > 0 {
		return fields[0]
	}
	return ""
}
