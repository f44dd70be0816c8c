package sfu

import (
	"fmt"
	"os"
	"strings"
	"time"
)

// others returns the processor time that everything but this process has taken,
// since the machine began; 0 where the system does not tell as Linux does.
func others() time.Duration {
	const tick = time.Second / 100 // of both files (proc(5))
	whole, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	own, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return 0
	}
	var user, nice, system int64
	_, _ = fmt.Sscanf(string(whole), "cpu %d %d %d", &user, &nice, &system)
	f := strings.Fields(string(own[strings.LastIndexByte(string(own), ')')+1:])) // from the third field on
	var u, s int64
	if len(f) > 12 {
		_, _ = fmt.Sscan(f[11]+" "+f[12], &u, &s)
	}
	return time.Duration(user+nice+system-u-s) * tick
}
