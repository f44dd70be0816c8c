//go:build !unix

package sfu

// newPages returns a buffer, and what gives it back.
func newPages(size int) (b []byte, free func()) { return make([]byte, size), func() {} }
