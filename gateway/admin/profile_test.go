package admin

import (
	"runtime"
	"testing"
	"time"
)

// Mutexes are looked at while a profile of them is taken, and at no other time.
func TestMutexProfile(t *testing.T) {
	url, _ := start(t)
	taken := make(chan int, 1)
	go func() {
		code, _ := get(t, url+"/debug/pprof/mutex?seconds=2", "")
		taken <- code
	}()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	seen := false
	for {
		select {
		case code := <-taken:
			if code != 200 || !seen {
				t.Errorf("status %d, mutexes looked at: %v", code, seen)
			}
			if n := runtime.SetMutexProfileFraction(-1); n != 0 {
				t.Errorf("one of %d is looked at afterwards", n)
			}
			return
		case <-tick.C:
			seen = seen || runtime.SetMutexProfileFraction(-1) == mutexFraction
		}
	}
}
