package gateway

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// openUnnamed opens a new file in dir that has no name: it is gone with the
// process, however that ends.
func openUnnamed(dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR) {
		return openRemoved(dir) // not every file system can
	}
	if err != nil {
		return nil, &os.PathError{Op: "open a file in", Path: dir, Err: err}
	}
	return os.NewFile(uintptr(fd), fmt.Sprintf("%s/(unnamed)", dir)), nil
}

// nearlyFull reports whether the file system of f has less than a sixteenth
// left for ordinary users. Mattermost's database may live there, too.
func nearlyFull(f *os.File) bool {
	var st unix.Statfs_t
	return unix.Fstatfs(int(f.Fd()), &st) == nil && st.Bavail < st.Blocks/16
}
