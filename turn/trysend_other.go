//go:build !linux

package turn

import "errors"

// canTry tells whether trySend works here: if not, a goroutine waits wherever
// something is written.
const canTry = false

func trySend(uintptr, []byte, bool) (int, error) { return 0, errors.ErrUnsupported }

func tryReceive(uintptr, []byte) (int, bool, error) { return 0, true, errors.ErrUnsupported }
