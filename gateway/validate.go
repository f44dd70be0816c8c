package gateway

import (
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"

	"sallyport/gateway/admin"
)

// Problem is one thing wrong with a Config.
type Problem struct {
	// Key is the dotted path of the key, as in "tls.cert_file" or
	// "sfu.api.clients[1].id".
	Key string
	// Text says what is wrong with it and what would be right, without the key.
	Text string
}

// String returns "key: text".
func (p Problem) String() string { return p.Key + ": " + p.Text }

// problems collects what validation finds.
type problems []Problem

func (ps *problems) add(key, format string, args ...any) {
	*ps = append(*ps, Problem{Key: key, Text: fmt.Sprintf(format, args...)})
}

// Validate returns everything that keeps c from being served, in the order of
// config.yaml; nothing means c is good. It does no input or output: whether
// files exist and ports are free is found out by those who open them.
func (c Config) Validate() []Problem {
	var ps problems
	c.validateDomain(&ps)
	c.validateUpstream(&ps)
	c.validateListen(&ps)
	c.validateTLS(&ps)
	c.validateProxy(&ps)
	c.validateLimits(&ps)
	c.validateAccess(&ps)
	c.validateTURN(&ps)
	c.validateSFU(&ps)
	c.validateAPI(&ps)
	c.validateAdmin(&ps)
	c.validateSocket(&ps)
	c.validateRest(&ps)
	c.validateShared(&ps)
	return ps
}

// Warnings returns what is allowed but probably not meant, in the same form
// as Validate.
func (c Config) Warnings() []Problem {
	var ps problems
	if c.SFU.Mode != ModeRTCD {
		return ps
	}
	if a, err := parseListen(c.SFU.API.Listen); err == nil && !a.private() {
		ps.add("sfu.api.listen", "%s can be reached from outside: only Mattermost should be able to connect, so let a firewall see to that", c.SFU.API.Listen)
	}
	if len(c.SFU.API.Clients) == 0 && !c.SFU.API.SelfRegistration && c.SFU.API.Store == "" {
		ps.add("sfu.api.clients", "no client may connect: name one here, or set self_registration: true")
	}
	return ps
}

func (c Config) validateDomain(ps *problems) {
	switch {
	case c.Domain == "":
		ps.add("domain", "missing: write the public host name, like chat.example.com")
	case strings.Contains(c.Domain, "://") || strings.Contains(c.Domain, "/"):
		ps.add("domain", "%q is a URL: write the host name alone, like chat.example.com", c.Domain)
	case isAddress(c.Domain):
	case strings.Contains(c.Domain, ":"):
		ps.add("domain", "%q has a port: write the host name alone and set the port in listen.https", c.Domain)
	case strings.HasPrefix(c.Domain, "*."):
		ps.add("domain", "%q is a wildcard: write the one name clients use", c.Domain)
	case !isHostName(c.Domain):
		ps.add("domain", "%q is not a host name in lower case, like chat.example.com", c.Domain)
	}
}

func (c Config) validateListen(ps *problems) {
	if c.Listen.HTTPS == "" {
		ps.add("listen.https", "missing: everything arrives here, as on \":443\"")
	}
	checkListen(ps, "listen.https", c.Listen.HTTPS)
	checkListen(ps, "listen.http", c.Listen.HTTP)
	checkListen(ps, "listen.udp", c.Listen.UDP)
}

func (c Config) validateAdmin(ps *problems) {
	if c.Admin.Listen == "" {
		ps.add("admin.listen", "missing: use 127.0.0.1:9443")
		return
	}
	checkListen(ps, "admin.listen", c.Admin.Listen)
	if a, err := parseListen(c.Admin.Listen); err == nil && !a.private() {
		ps.add("admin.listen", "%s can be reached from outside and asks for no password: use a loopback or private address, like 127.0.0.1:9443", c.Admin.Listen)
	}
}

func (c Config) validateSocket(ps *problems) {
	if s := c.Admin.Socket; s != "" && !path.IsAbs(s) {
		ps.add("admin.socket", "%q is not a path like %s", s, defaultSocket)
	} else if len(s) > admin.MaxSocket {
		ps.add("admin.socket", "the path has %d bytes, %d is the most", len(s), admin.MaxSocket)
	}
}

func (c Config) validateRest(ps *problems) {
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, c.Log.Level) {
		ps.add("log.level", "%q is not one of debug, info, warn, error", c.Log.Level)
	}
	if c.Log.Format != "json" && c.Log.Format != "text" {
		ps.add("log.format", "%q is not json or text", c.Log.Format)
	}
	if !slices.Contains([]string{accessOff, accessErrors, accessAll}, c.Log.Access) {
		ps.add("log.access", "%q is not one of off, errors, all", c.Log.Access)
	}
	if c.Log.Sample < 1 {
		ps.add("log.sample", "%d is less than 1: use 1 for every request", c.Log.Sample)
	}
	if c.Drain.Timeout < 0 {
		ps.add("drain.timeout", "%s is negative: use 0s to wait for no call", c.Drain.Timeout)
	}
	if c.Drain.WebsocketSpread < 0 {
		ps.add("drain.websocket_spread", "%s is negative: use 0s to close all at once", c.Drain.WebsocketSpread)
	}
}

func isAddress(s string) bool {
	a, err := netip.ParseAddr(s)
	return err == nil && a.Zone() == ""
}

func isPrefix(s string) bool {
	_, err := netip.ParsePrefix(s)
	return err == nil
}

// isPort reports whether s is a port that one can connect to.
func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}

// isHostName reports whether s is a name of RFC 1123 labels in lower case.
func isHostName(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, r := range label {
			if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' {
				return false
			}
		}
	}
	// A name that ends in a number would be taken for an address.
	last := s[strings.LastIndexByte(s, '.')+1:]
	return strings.Trim(last, "0123456789") != ""
}
