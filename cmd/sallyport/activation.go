package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"sallyport/gateway"
)

// firstSocket is the file descriptor of the first socket that is passed.
const firstSocket = 3

// inheritedSockets returns the sockets that the service manager has opened for
// this process, by name (sd_listen_fds(3)); none if it has not. The variables that
// tell of them are taken out of the environment: a child has none.
func inheritedSockets() (gateway.Inherited, error) {
	count, names := os.Getenv("LISTEN_FDS"), os.Getenv("LISTEN_FDNAMES")
	ours := os.Getenv("LISTEN_PID") == strconv.Itoa(os.Getpid())
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		if err := os.Unsetenv(name); err != nil {
			return nil, fmt.Errorf("unset %s: %w", name, err)
		}
	}
	if !ours {
		return nil, nil
	}
	named, err := socketNames(count, names)
	if err != nil {
		return nil, err
	}
	all := gateway.Inherited{}
	for i, name := range named {
		fd := firstSocket + i
		syscall.CloseOnExec(fd)
		all[name] = append(all[name], os.NewFile(uintptr(fd), name))
	}
	return all, nil
}

// socketNames are the names of count sockets.
func socketNames(count, names string) ([]string, error) {
	n, err := strconv.Atoi(count)
	if err != nil || n < 0 {
		return nil, fmt.Errorf("LISTEN_FDS is %q, which is not a number of sockets", count)
	}
	if n == 0 {
		return nil, nil
	}
	named := strings.Split(names, ":")
	if names == "" || len(named) != n {
		return nil, fmt.Errorf("%d sockets are passed with the names %q: each needs one (FileDescriptorName=)", n, names)
	}
	return named, nil
}
