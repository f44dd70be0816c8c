package main

import (
	"io/fs"
	"log/slog"
	"os"
	"path"
	"runtime/debug"
	"strconv"
	"strings"
)

// memoryShare is how much of its control group's memory the Go runtime may take,
// in percent. The rest is for what it does not count: buffers of data channels,
// and the kernel's for sockets, which the group pays too.
const memoryShare = 90

// heapGrowth is by how much the heap may grow beyond what is in use until the
// garbage collector runs, in percent. Go's default of 100 is for programs that
// allocate with all they do. Here packets are forwarded without, so that the
// collector has little to do: 200 idle participants allocate 1 MB a second in all. A
// quarter of the room to spare is enough.
const heapGrowth = 25

// spareMemory sets heapGrowth. A GOGC in the environment has the last word.
func spareMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(heapGrowth)
	}
}

// limitMemory tells the garbage collector how much memory there is, if a control
// group limits it: it then works harder near the limit instead of being killed
// beyond. A GOMEMLIMIT in the environment has the last word.
func limitMemory(logger *slog.Logger) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	if limit, ok := memoryLimit(os.DirFS("/")); ok {
		debug.SetMemoryLimit(limit / 100 * memoryShare)
		logger.Debug("memory limit", "bytes", limit/100*memoryShare, "group", limit)
	}
}

// memoryLimit returns the least of the memory limits of the process's control
// group and those above it, in bytes, as the root of a file system shows them.
func memoryLimit(root fs.FS) (limit int64, ok bool) {
	text, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(text)) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3) // ID, controllers, path
		if len(f) != 3 {
			continue
		}
		top, file := "", ""
		switch {
		case f[0] == "0" && f[1] == "":
			top, file = "sys/fs/cgroup", "memory.max"
		case f[1] == "memory":
			top, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		default:
			continue
		}
		// The group may be named as seen from outside a container, which sees
		// itself at the top.
		for group := path.Clean("/" + f[2]); ; group = path.Dir(group) {
			if n, found := readLimit(root, path.Join(top, group, file)); found && (!ok || n < limit) {
				limit, ok = n, true
			}
			if group == "/" {
				break
			}
		}
	}
	return limit, ok
}

// readLimit reads one limit. "max", and what version 1 has in its place, is none.
func readLimit(root fs.FS, name string) (int64, bool) {
	text, err := fs.ReadFile(root, name)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	return n, err == nil && n > 0 && n < 1<<60
}
