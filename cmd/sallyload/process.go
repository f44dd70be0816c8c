package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// clockTicks is the unit of processor time in /proc, which Linux has fixed at
// 100 a second for all programs to see (USER_HZ).
const clockTicks = 100

// A process is what /proc says of one at one moment.
type process struct {
	pid    int
	cpu    time.Duration // user and system
	memory uint64        // resident, bytes
	peak   uint64        // the most that was resident, bytes
}

// readProcesses reads all of them; a missing one is an error.
func readProcesses(pids []int) ([]process, error) {
	var all []process
	for _, pid := range pids {
		p, err := readProcess(pid)
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

func readProcess(pid int) (process, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return process{}, fmt.Errorf("read process %d: %w", pid, err)
	}
	p, err := parseStat(pid, b)
	if err == nil {
		p.peak = max(readPeak(pid), p.memory)
	}
	return p, err
}

// spentBy is the processor time of the processes so far, to the microsecond where the
// kernel counts it by thread. The time of threads that have ended is lost then.
func spentBy(pids []int) (total time.Duration, err error) {
	for _, pid := range pids {
		threads, _ := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/schedstat")
		var exact time.Duration
		for _, file := range threads {
			b, _ := os.ReadFile(file)
			first, _, _ := strings.Cut(string(b), " ")
			n, _ := strconv.ParseInt(first, 10, 64)
			exact += time.Duration(n)
		}
		if exact == 0 {
			p, err := readProcess(pid)
			if err != nil {
				return 0, err
			}
			exact = p.cpu
		}
		total += exact
	}
	return total, nil
}

// readPeak returns the line VmHWM of proc(5) /proc/pid/status in bytes, 0 where
// there is none.
func readPeak(pid int) uint64 {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if value, is := strings.CutPrefix(line, "VmHWM:"); is {
			kib, _ := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			return kib << 10
		}
	}
	return 0
}

// parseStat reads proc(5) /proc/pid/stat. Its second field, the program's name,
// may hold blanks and parentheses, so counting begins after the last one.
func parseStat(pid int, b []byte) (process, error) {
	end := bytes.LastIndexByte(b, ')')
	fields := strings.Fields(string(b[end+1:]))
	if end < 0 || len(fields) < 22 {
		return process{}, fmt.Errorf("read process %d: unknown format", pid)
	}
	var numbers [3]uint64
	for i, field := range []int{11, 12, 21} { // utime, stime, rss
		n, err := strconv.ParseUint(fields[field], 10, 64)
		if err != nil {
			return process{}, fmt.Errorf("read process %d: %w", pid, err)
		}
		numbers[i] = n
	}
	return process{
		pid: pid, memory: numbers[2] * uint64(os.Getpagesize()),
		cpu: time.Duration(numbers[0]+numbers[1]) * time.Second / clockTicks,
	}, nil
}

// machine describes the one we are on: threads, processor and kernel, as far as
// /proc tells.
func machine() string {
	words := []string{strconv.Itoa(runtime.NumCPU()) + " CPUs"}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if name, value, has := strings.Cut(line, ":"); has && strings.TrimSpace(name) == "model name" {
				words = append(words, strings.TrimSpace(value))
				break
			}
		}
	}
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		words = append(words, "Linux "+strings.TrimSpace(string(b)))
	}
	return strings.Join(append(words, runtime.Version()), ", ")
}

// readSelf reads this process; zero where there is no /proc.
func readSelf() process {
	p, err := readProcess(os.Getpid())
	if err != nil {
		return process{}
	}
	return p
}
