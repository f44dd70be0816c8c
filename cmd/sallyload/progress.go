package main

import (
	"fmt"
	"os"
	"sync"
	"time"
)

// showProgress rewrites one line every second if standard error is a terminal.
// The function it returns ends that and clears the line.
func (l *load) showProgress() func() {
	f, is := l.stderr.(*os.File)
	if !is {
		return func() {}
	}
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return func() {}
	}
	done := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			fmt.Fprintf(f, "\r\x1b[K%s", l.status())
			select {
			case <-tick.C:
			case <-done:
				fmt.Fprint(f, "\r\x1b[K")
				return
			}
		}
	})
	return func() {
		close(done)
		writer.Wait()
	}
}
