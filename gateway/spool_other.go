//go:build !linux

package gateway

import "os"

func openUnnamed(dir string) (*os.File, error) { return openRemoved(dir) }

func nearlyFull(*os.File) bool { return false }
