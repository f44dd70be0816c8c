package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// clockTicks is the unit of processor time in /proc, which Linux has fixed at
// 100 a second for all programs to see (USER_HZ).
const clockTicks = 100

// A usage is what a process and all its children took until now.
type usage struct {
	cpu    time.Duration // user and system
	memory uint64        // bytes: what is theirs, and their share of what they share
}

// usage adds up the target's processes.
func (t *target) usage() (usage, error) {
	parents := map[int]int{}
	spent := map[int]time.Duration{}
	dirs, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return usage{}, err
	}
	for _, name := range dirs {
		b, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended meanwhile
		}
		fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		if len(fields) < 13 {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		parents[pid], _ = strconv.Atoi(fields[1])
		user, _ := strconv.ParseInt(fields[11], 10, 64)
		system, _ := strconv.ParseInt(fields[12], 10, 64)
		spent[pid] = time.Duration(user+system) * time.Second / clockTicks
	}
	var all usage
	for pid := range parents {
		if !descends(parents, pid, t.cmd.Process.Pid) {
			continue
		}
		memory, err := shareOf(pid)
		if err != nil {
			return usage{}, fmt.Errorf("read process %d: %w", pid, err)
		}
		all.cpu += spent[pid]
		all.memory += memory
	}
	if all.memory == 0 {
		return usage{}, fmt.Errorf("process %d is gone", t.cmd.Process.Pid)
	}
	return all, nil
}

// descends reports whether pid is ancestor or comes of it.
func descends(parents map[int]int, pid, ancestor int) bool {
	for range 10 {
		if pid == ancestor {
			return true
		}
		pid = parents[pid]
	}
	return false
}

// shareOf is the resident memory of a process in bytes, of which pages that
// several processes share count in part (Pss): the workers of nginx have many of
// their master's.
func shareOf(pid int) (uint64, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/smaps_rollup")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if value, is := strings.CutPrefix(line, "Pss:"); is {
			kib, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("no Pss")
}
