//go:build !linux

package gateway

import (
	"syscall"
	"time"
)

// endUnacknowledged does nothing: what other systems offer differs.
func endUnacknowledged(syscall.RawConn, time.Duration) {}
