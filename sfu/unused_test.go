package sfu

import (
	"bytes"
	"net"
	"os"
	"runtime"
	"testing"
)

// The buffer of who waits is given back without harm to what comes for it.
func TestBuffersAreGivenBack(t *testing.T) {
	q, buf := newQueue(4), bytes.Repeat([]byte{0xAA}, 4*os.Getpagesize())
	got := make(chan int)
	go func() {
		n, _, err := q.pop(buf)
		if err != nil {
			t.Errorf("pop: %v", err)
		}
		got <- n
	}()
	until(t, "somebody to wait", func() bool {
		q.mu.Lock()
		defer q.mu.Unlock()
		return q.unused != nil
	})
	q.giveBack()
	q.push([]byte("late"), &net.UDPAddr{Port: 1})
	if n := <-got; string(buf[:n]) != "late" {
		t.Errorf("got %q", buf[:n])
	}
	if kept := bytes.Count(buf, []byte{0xAA}); runtime.GOOS == "linux" && kept > 2*os.Getpagesize() {
		t.Errorf("%d bytes were kept: all but the parts of pages can go", kept)
	}
	if q.unused != nil {
		t.Error("the buffer is somebody's now")
	}
	q.giveBack()
	if string(buf[:4]) != "late" {
		t.Errorf("given back while in use: %q", buf[:4])
	}
}

func TestDiscardPages(t *testing.T) {
	page := os.Getpagesize()
	whole := make([]byte, 4*page)
	for _, p := range [][]byte{nil, {}, whole[:1], whole[1:2], whole[:page-1], whole[1 : page+1]} {
		for i := range whole {
			whole[i] = 1
		}
		discardPages(p)
		outside := len(whole)
		if len(p) > 0 {
			outside -= len(p)
		}
		if kept := bytes.Count(whole, []byte{1}); kept < outside {
			t.Errorf("%d bytes: %d of %d bytes around are left", len(p), kept, outside)
		}
	}
}
