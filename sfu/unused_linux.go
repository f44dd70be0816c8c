package sfu

import (
	"os"
	"syscall"
	"unsafe"
)

// discardPages gives the system the whole pages of a buffer in which nothing of worth is: they
// take no memory until they are written to again, and read as zeros.
func discardPages(p []byte) {
	page := os.Getpagesize()
	if over := int(uintptr(unsafe.Pointer(unsafe.SliceData(p))) % uintptr(page)); over != 0 {
		p = p[min(page-over, len(p)):]
	}
	if p = p[:len(p)/page*page]; len(p) > 0 {
		_ = syscall.Madvise(p, syscall.MADV_DONTNEED)
	}
}
