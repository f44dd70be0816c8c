//go:build !linux

package sfu

// discardPages does nothing here.
func discardPages([]byte) {}
