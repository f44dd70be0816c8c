package admin

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"
)

// MaxSocket is the longest path of a command socket, in bytes: what Linux has room
// for, less what is needed while it is made.
const MaxSocket = 80

var (
	errSocketTaken = errors.New("another process answers there")
	errNotSocket   = errors.New("there is something else than a socket")
)

// ListenSocket opens a Unix socket that only this user, and root, can connect to.
// One that a dead process has left is replaced. Close removes it.
func ListenSocket(path string) (net.Listener, error) {
	if conn, err := net.DialTimeout("unix", path, time.Second); err == nil {
		_ = conn.Close()
		return nil, errSocketTaken
	}
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() != fs.ModeSocket {
		return nil, errNotSocket
	}
	// It is made where nobody else may enter and moved when its mode is right: at
	// no moment can somebody else connect.
	dir, err := os.MkdirTemp(filepath.Dir(path), ".admin-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	made := filepath.Join(dir, "s")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: made, Net: "unix"})
	if err != nil {
		return nil, err
	}
	ln.SetUnlinkOnClose(false)
	s := &socket{UnixListener: ln, path: path}
	if err := errors.Join(os.Chmod(made, 0o600), os.Rename(made, path)); err != nil {
		_ = ln.Close()
		return nil, err
	}
	if s.file, err = os.Lstat(path); err != nil {
		_ = ln.Close()
		return nil, err
	}
	return s, nil
}

// A socket is a listener that lies at another path than it was bound to.
type socket struct {
	*net.UnixListener
	path string
	file fs.FileInfo
}

// Addr implements net.Listener.
func (s *socket) Addr() net.Addr { return &net.UnixAddr{Name: s.path, Net: "unix"} }

// Close implements net.Listener. It leaves alone what has taken the socket's place.
func (s *socket) Close() error {
	err := s.UnixListener.Close()
	if now, statErr := os.Lstat(s.path); err == nil && statErr == nil && os.SameFile(now, s.file) {
		err = os.Remove(s.path)
	}
	return err
}
