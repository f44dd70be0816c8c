package main

import (
	"runtime/debug"
	"testing"
	"testing/fstest"
)

func TestMemoryLimit(t *testing.T) {
	const gib = "1073741824\n"
	for _, test := range []struct {
		name  string
		files map[string]string
		want  int64 // 0: none
	}{
		{"no control groups", nil, 0},
		{"version 2, a service", map[string]string{
			"proc/self/cgroup": "0::/system.slice/sallyport.service\n",
			"sys/fs/cgroup/system.slice/sallyport.service/memory.max":   gib,
			"sys/fs/cgroup/system.slice/memory.max":                     "max\n",
			"sys/fs/cgroup/system.slice/sallyport.service/memory.low":   "5\n",
			"sys/fs/cgroup/memory/system.slice/memory.limit_in_bytes":   "7\n",
			"sys/fs/cgroup/system.slice/other.service/memory.max":       "9\n",
			"sys/fs/cgroup/system.slice/sallyport.service/cgroup.procs": "1\n",
		}, 1 << 30},
		{"version 2, a tighter group above", map[string]string{
			"proc/self/cgroup":             "0::/a/b\n",
			"sys/fs/cgroup/a/b/memory.max": gib,
			"sys/fs/cgroup/a/memory.max":   "536870912\n",
		}, 1 << 29},
		{"version 2, a container", map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": gib}, 1 << 30},
		{"version 2, unlimited", map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, 0},
		{"version 1, named from outside", map[string]string{
			"proc/self/cgroup":                           "12:cpu,cpuacct:/docker/x\n5:memory:/docker/x\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": gib,
		}, 1 << 30},
		{"version 1, unlimited", map[string]string{
			"proc/self/cgroup":                           "5:memory:/\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
		}, 0},
		{"nonsense", map[string]string{"proc/self/cgroup": "0\n0::\n::\n0::../../x\n", "sys/fs/cgroup/memory.max": "-3\n"}, 0},
	} {
		root := fstest.MapFS{}
		for name, text := range test.files {
			root[name] = &fstest.MapFile{Data: []byte(text)}
		}
		if got, ok := memoryLimit(root); got != test.want && ok || ok != (test.want > 0) {
			t.Errorf("%s: %d %v, want %d", test.name, got, ok, test.want)
		}
	}
}

func TestSpareMemory(t *testing.T) {
	was := debug.SetGCPercent(100)
	t.Cleanup(func() { debug.SetGCPercent(was) })
	for _, test := range []struct {
		environment string
		want        int
	}{{"", heapGrowth}, {"200", 100}} {
		t.Setenv("GOGC", test.environment)
		debug.SetGCPercent(100)
		spareMemory()
		if got := debug.SetGCPercent(100); got != test.want {
			t.Errorf("GOGC=%q: %d %%, want %d %%", test.environment, got, test.want)
		}
	}
}
