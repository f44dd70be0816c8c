package tls

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
)

// A PROXY header is what a load balancer that only forwards bytes writes before
// the client's first one, to say who the client is (haproxy's proxy-protocol.txt,
// versions 1 and 2).
const (
	proxyV1 = "PROXY "
	proxyV2 = "\r\n\r\n\x00\r\nQUIT\n"

	// proxyV1Max is the longest header of version 1, line end included.
	proxyV1Max = 107

	// proxyV2Max is the longest body of a version 2 header we read, in bytes:
	// addresses and additions, of which only the former matter to us. The length
	// on the wire could announce 64 KiB.
	proxyV2Max = 4096

	// proxyV2Mark is how much of proxyV2 tells it from everything else.
	proxyV2Mark = 7
)

var errProxyHeader = errors.New("malformed PROXY header")

// classifyProxy recognises the beginning of a PROXY header; more is true while
// b is one as far as it goes.
func classifyProxy(b []byte) (k kind, more bool) {
	for _, mark := range [...]string{proxyV1, proxyV2[:proxyV2Mark]} {
		switch {
		case len(b) >= len(mark) && string(b[:len(mark)]) == mark:
			return kindProxy, false
		case len(b) < len(mark) && string(b) == mark[:len(b)]:
			return kindUnknown, true
		}
	}
	return kindUnknown, false
}

// readProxy reads a PROXY header from r, of which head has been read already.
// It returns the client's address, not valid if the header names none (health
// checks of the balancer itself), and what was read beyond the header.
func readProxy(r io.Reader, head []byte) (client netip.AddrPort, rest []byte, err error) {
	if bytes.HasPrefix(head, []byte(proxyV1)) {
		return readProxyV1(r, head)
	}
	client, err = readProxyV2(io.MultiReader(bytes.NewReader(head), r))
	return client, nil, err
}

func readProxyV1(r io.Reader, head []byte) (client netip.AddrPort, rest []byte, err error) {
	line := make([]byte, len(head), proxyV1Max)
	copy(line, head)
	for {
		if end := bytes.IndexByte(line, '\n'); end >= 0 {
			client, err = parseProxyV1(string(line[:end+1]))
			return client, line[end+1:], err
		}
		if len(line) == cap(line) {
			return netip.AddrPort{}, nil, errProxyHeader
		}
		n, err := r.Read(line[len(line):cap(line)])
		line = line[:len(line)+n]
		if err != nil && n == 0 {
			return netip.AddrPort{}, nil, err
		}
	}
}

// parseProxyV1 reads "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n".
func parseProxyV1(line string) (netip.AddrPort, error) {
	body, ok := strings.CutSuffix(line, "\r\n")
	f := strings.Split(body, " ")
	switch {
	case !ok || len(f) < 2:
		return netip.AddrPort{}, errProxyHeader
	case f[1] == "UNKNOWN": // whatever follows is to be ignored
		return netip.AddrPort{}, nil
	case len(f) != 6 || f[1] != "TCP4" && f[1] != "TCP6":
		return netip.AddrPort{}, errProxyHeader
	}
	client, err := parseProxyAddr(f[1], f[2], f[4])
	if err != nil {
		return netip.AddrPort{}, err
	}
	_, err = parseProxyAddr(f[1], f[3], f[5])
	return client, err
}

func parseProxyAddr(family, ip, port string) (netip.AddrPort, error) {
	a, err := netip.ParseAddr(ip)
	if err != nil || a.Zone() != "" || a.Is4() != (family == "TCP4") {
		return netip.AddrPort{}, errProxyHeader
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || strconv.FormatUint(n, 10) != port {
		return netip.AddrPort{}, errProxyHeader
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(n)), nil
}

// What the 13th and 14th byte of a version 2 header say.
const (
	proxyLocal = 0x20 // the balancer speaks for itself
	proxyOther = 0x21 // it speaks for a client
	proxyTCP4  = 0x11
	proxyTCP6  = 0x21
)

// readProxyV2 reads exactly one header of version 2.
func readProxyV2(r io.Reader) (netip.AddrPort, error) {
	var fixed [16]byte
	if _, err := io.ReadFull(r, fixed[:]); err != nil {
		return netip.AddrPort{}, fmt.Errorf("read PROXY header: %w", err)
	}
	command, family := fixed[12], fixed[13]
	length := int(binary.BigEndian.Uint16(fixed[14:]))
	if string(fixed[:12]) != proxyV2 || command != proxyLocal && command != proxyOther || length > proxyV2Max {
		return netip.AddrPort{}, errProxyHeader
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(r, body); err != nil {
		return netip.AddrPort{}, fmt.Errorf("read PROXY header: %w", err)
	}
	if command == proxyLocal {
		return netip.AddrPort{}, nil
	}
	switch family { // addresses of both sides, ports of both sides, additions
	case proxyTCP4:
		return proxyV2Client(body, 4)
	case proxyTCP6:
		return proxyV2Client(body, 16)
	}
	return netip.AddrPort{}, nil // datagrams, Unix sockets, unspecified: no TCP client to name
}

func proxyV2Client(body []byte, size int) (netip.AddrPort, error) {
	if len(body) < 2*size+4 {
		return netip.AddrPort{}, errProxyHeader
	}
	a, _ := netip.AddrFromSlice(body[:size]) // of the right length
	return netip.AddrPortFrom(a.Unmap(), binary.BigEndian.Uint16(body[2*size:])), nil
}
