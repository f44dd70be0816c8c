package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

// apiHeaders are those of an answer of Mattermost's API.
const apiHeaders = "Content-Type: application/json\r\nVary: Origin\r\nX-Request-Id: 1pxs4iu3opdbpry3j4tsfsjoee\r\n" +
	"X-Version-Id: 10.11.0.17000000000.0123456789abcdef0123456789abcdef.true\r\nReferrer-Policy: no-referrer\r\n" +
	"Permissions-Policy: \r\nX-Content-Type-Options: nosniff\r\nCache-Control: no-cache, no-store, must-revalidate\r\n" +
	"Pragma: no-cache\r\nExpires: 0\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n"

// answers by path; everything else gets the small one.
var answers = map[string][]byte{
	"/small": answer(1 << 10),
	"/large": answer(100 << 10),
}

func answer(size int) []byte {
	return append(fmt.Appendf(nil, "HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n", apiHeaders, size), bytes.Repeat([]byte("x"), size)...)
}

// An upstream is a Mattermost that costs next to nothing.
type upstream struct {
	addr string
	cmd  *exec.Cmd
}

// startUpstream runs one as a process of its own, so that its work is not the
// measuring program's.
func startUpstream(ctx context.Context) (*upstream, error) {
	addr, err := freeAddress()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, os.Args[0], "-upstream", addr)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	u := &upstream{addr, cmd}
	if err := waitFor(ctx, addr); err != nil {
		u.stop()
		return nil, err
	}
	return u, nil
}

func (u *upstream) stop() {
	_ = u.cmd.Process.Kill()
	_ = u.cmd.Wait()
}

// serveUpstream serves on addr until ctx ends.
func serveUpstream(ctx context.Context, addr string) error {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { _ = ln.Close() })
	for {
		c, err := ln.Accept()
		if err != nil {
			return nil
		}
		go serveConn(c)
	}
}

func serveConn(c net.Conn) {
	defer c.Close()
	in := bufio.NewReaderSize(c, 4<<10)
	for {
		path, length, key, err := readHead(in)
		if err != nil {
			return
		}
		if _, err := io.CopyN(io.Discard, in, length); err != nil {
			return
		}
		if key != "" {
			sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
			fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
				base64.StdEncoding.EncodeToString(sum[:]))
			_, _ = io.Copy(io.Discard, c)
			return
		}
		a, ok := answers[path]
		if !ok {
			a = answers["/small"]
		}
		if _, err := c.Write(a); err != nil {
			return
		}
	}
}

// readHead reads as much of a request as the answer depends on.
func readHead(in *bufio.Reader) (path string, length int64, key string, err error) {
	for first := true; ; first = false {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return "", 0, "", err
		}
		line = bytes.TrimRight(line, "\r\n")
		if first {
			if words := bytes.SplitN(line, []byte(" "), 3); len(words) == 3 {
				path = string(words[1])
			}
			continue
		}
		if len(line) == 0 {
			return path, length, key, nil
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch strings.ToLower(string(name)) {
		case "content-length":
			length, err = strconv.ParseInt(string(bytes.TrimSpace(value)), 10, 64)
			if err != nil {
				return "", 0, "", err
			}
		case "sec-websocket-key":
			key = string(bytes.TrimSpace(value))
		}
	}
}
