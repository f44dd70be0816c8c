package rtcd

import (
	"fmt"
	"io/fs"
	"math"
	"os"
	"runtime"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"
)

// counters is a root file system whose idle counter the test moves.
func counters(idle float64, more fstest.MapFS) fstest.MapFS {
	all := fstest.MapFS{
		"proc/stat":    {Data: fmt.Appendf(nil, "cpu  100 0 100 %d 0 0 0 0 0 0\ncpu0 …\n", int(idle*ticks))},
		"proc/loadavg": {Data: []byte("1.50 0.69 0.42 1/92 15581\n")},
	}
	for name, file := range more {
		all[name] = file
	}
	return all
}

// measure returns the load between two states of the machine, one second apart.
func measure(t *testing.T, cores int, before, after fs.FS) float64 {
	t.Helper()
	l := newCPULoad(before, cores)
	now := time.Now()
	prev, err := l.sample(now)
	if err != nil {
		t.Fatal(err)
	}
	l.fsys = after
	cur, err := l.sample(now.Add(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	l.set(cur.idleSince(prev))
	return l.load()
}

func TestStatement03LoadRisesAsCoresFill(t *testing.T) {
	for _, tt := range []struct{ idle, want float64 }{
		{8, 0.125}, {6, 1.0 / 6}, {2, 0.5}, {0.5, 2}, {0, 1 / minIdle}, {-1, 1 / minIdle}, {9, 0.125},
	} {
		if got := measure(t, 8, counters(1000, nil), counters(1000+tt.idle, nil)); math.Abs(got-tt.want) > 1e-9 {
			t.Errorf("%v idle cores of 8: load %v, want %v", tt.idle, got, tt.want)
		}
	}
}

func TestAContainersLimitCounts(t *testing.T) {
	v2 := func(usec int) fstest.MapFS {
		return fstest.MapFS{
			"proc/self/cgroup":            {Data: []byte("0::/a/b\n")},
			"sys/fs/cgroup/a/b/cpu.max":   {Data: []byte("max 100000\n")}, // its parent's limit holds for it
			"sys/fs/cgroup/a/b/cpu.stat":  {Data: []byte("usage_usec 1\n")},
			"sys/fs/cgroup/a/cpu.max":     {Data: []byte("200000 100000\n")},
			"sys/fs/cgroup/a/cpu.stat":    {Data: fmt.Appendf(nil, "usage_usec %d\nuser_usec 0\n", usec)},
			"sys/fs/cgroup/other/cpu.max": {Data: []byte("1000 100000\n")},
		}
	}
	if got := measure(t, 8, counters(0, v2(0)), counters(7, v2(1_500_000))); got != 2 {
		t.Errorf("cgroup v2, 2 cores, 1.5 used: load %v, want 2", got)
	}
	v1 := func(nsec int) fstest.MapFS {
		return fstest.MapFS{
			"proc/self/cgroup":                    {Data: []byte("5:memory:/x\n3:cpu,cpuacct:/\n2:cpuset:/\n")},
			"sys/fs/cgroup/cpu/cpu.cfs_quota_us":  {Data: []byte("150000\n")},
			"sys/fs/cgroup/cpu/cpu.cfs_period_us": {Data: []byte("100000\n")},
			"sys/fs/cgroup/cpuacct/cpuacct.usage": {Data: fmt.Appendf(nil, "%d\n", nsec)},
		}
	}
	if got := measure(t, 8, counters(0, v1(0)), counters(7, v1(500_000_000))); got != 1 {
		t.Errorf("cgroup v1, 1.5 cores, 0.5 used: load %v, want 1", got)
	}
}

func TestTheFirstLoadIsNoZero(t *testing.T) {
	if got := newCPULoad(counters(0, nil), 2).load(); got != 2 {
		t.Errorf("2 cores with a load average of 1.5: load %v, want 2", got)
	}
	if got := newCPULoad(fstest.MapFS{}, 4).load(); got != 0.25 {
		t.Errorf("nothing known of 4 cores: load %v, want 0.25", got)
	}
}

func TestBrokenCountersLeaveTheLoadAlone(t *testing.T) {
	for _, text := range []string{"", "cpu", "cpu 1 2 3 x", "intr 1 2 3 4 5"} {
		l := newCPULoad(fstest.MapFS{"proc/stat": {Data: []byte(text)}}, 4)
		if s, err := l.sample(time.Now()); err == nil {
			t.Errorf("%q is read as %+v", text, s)
		}
	}
	now := time.Now()
	l := newCPULoad(fstest.MapFS{}, 4)
	l.set(cpuSample{at: now, idle: 5}.idleSince(cpuSample{at: now, idle: 1}))
	if got := l.load(); got != 0.25 {
		t.Errorf("no time between samples: load %v", got)
	}
}

func TestTheLoadIsSampledEverySecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &moving{start: time.Now()}
		l := newCPULoad(m, 8)
		go l.run(t.Context())
		time.Sleep(2500 * time.Millisecond)
		synctest.Wait()
		if got := l.load(); math.Abs(got-1.0/3) > 1e-9 {
			t.Errorf("load %v with 3 idle cores", got)
		}
	})
}

// moving is a machine with 3 idle cores.
type moving struct{ start time.Time }

func (m *moving) Open(name string) (fs.File, error) {
	return counters(3*time.Since(m.start).Seconds(), nil).Open(name)
}

func TestThisMachineCanBeSampled(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the counters of the CPUs are read on Linux only")
	}
	l := newCPULoad(os.DirFS("/"), runtime.NumCPU())
	if s, err := l.sample(time.Now()); err != nil || s.idle < 0 {
		t.Errorf("%+v, %v", s, err)
	}
}
