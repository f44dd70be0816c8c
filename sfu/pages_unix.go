//go:build unix

package sfu

import "syscall"

// newPages returns a buffer that takes no more memory than has been written to,
// and what gives it back. It is no part of the heap: nothing may use it after.
func newPages(size int) (b []byte, free func()) {
	b, err := syscall.Mmap(-1, 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return make([]byte, size), func() {}
	}
	return b, func() { _ = syscall.Munmap(b) }
}
