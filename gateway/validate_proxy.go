package gateway

import (
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"
)

// mattermostIdle is the time after which Mattermost closes an idle
// connection (its ServiceSettings.IdleTimeout).
const mattermostIdle = 60 * time.Second

func (c Config) validateUpstream(ps *problems) {
	if len(c.Upstream) == 0 {
		ps.add("upstream", "missing: write the URL of Mattermost, like http://127.0.0.1:8065")
	}
	var names []string
	for i, raw := range c.Upstream {
		key := "upstream"
		if len(c.Upstream) > 1 {
			key = fmt.Sprintf("upstream[%d]", i)
		}
		if text := upstreamFault(raw); text != "" {
			ps.add(key, "%s", text)
		} else if name := upstreamName(raw); slices.Contains(names, name) {
			ps.add(key, "%q is listed twice", raw)
		} else {
			names = append(names, name)
		}
	}
}

// maxSocketPath is what Linux has room for in the address of a Unix socket.
const maxSocketPath = 107

// withoutUser is raw, which need not be a URL, as it may be shown: without what
// may be a user name and a password. A password may hold any character.
func withoutUser(raw string) string {
	at := strings.LastIndexByte(raw, '@')
	if at < 0 {
		return raw
	}
	scheme := ""
	if end := strings.Index(raw[:at], "://"); end >= 0 {
		scheme = raw[:end+len("://")]
	}
	return scheme + "…" + raw[at:]
}

// upstreamFault says what is wrong with the base URL of an upstream, or "".
func upstreamFault(raw string) string {
	u, err := url.Parse(raw)
	shown := withoutUser(raw)
	switch {
	case err != nil, u.Scheme == "", u.Opaque != "":
		return fmt.Sprintf("%q is not a URL like http://127.0.0.1:8065", shown)
	case u.Scheme == "unix" && (u.Host != "" || !path.IsAbs(u.Path) || u.RawQuery != "" || u.Fragment != ""):
		return fmt.Sprintf("%q is not a Unix socket like unix:/run/mattermost/http.sock", shown)
	case u.Scheme == "unix" && len(u.Path) > maxSocketPath:
		return fmt.Sprintf("the path of a Unix socket has %d bytes at most, this one %d", maxSocketPath, len(u.Path))
	case u.Scheme == "unix":
		return ""
	case u.User != nil:
		return "the URL holds a user name or a password, which Mattermost does not ask for: remove it"
	case u.Scheme != "http" && u.Scheme != "https":
		return fmt.Sprintf("scheme %q is not supported: use http, https or unix", u.Scheme)
	case u.Hostname() == "":
		return fmt.Sprintf("%q names no host", shown)
	case u.Path != "" && u.Path != "/", u.RawQuery != "", u.Fragment != "":
		return fmt.Sprintf("%q has a path: write scheme, host and port only (requests keep their own path)", shown)
	}
	if p := u.Port(); p != "" && !isPort(p) {
		return fmt.Sprintf("%q: port %s is not between 1 and 65535", shown, p)
	}
	return ""
}

// upstreamName is what tells the upstream at raw, a good URL, from others.
func upstreamName(raw string) string {
	u, err := newUpstream(raw)
	if err != nil {
		return raw
	}
	return u.address()
}

// minWebsocketIdle leaves Mattermost's ping, every 60 s, time to arrive.
const minWebsocketIdle = 65 * time.Second

func (c Config) validateProxy(ps *problems) {
	checkNetworks(ps, "proxy.trusted_proxies", c.Proxy.TrustedProxies)
	if idle := c.Proxy.IdleTimeout; idle <= 0 || idle >= mattermostIdle {
		ps.add("proxy.idle_timeout", "%s is not between 1s and 59s: Mattermost closes idle connections after 60s", idle)
	}
	if c.Proxy.MinRate < 0 {
		ps.add("proxy.min_rate", "%d is negative: use 0 to take any rate", c.Proxy.MinRate)
	}
	if c.Proxy.MaxBody < 0 {
		ps.add("proxy.max_body", "%d is negative: use 0 for Mattermost's own limit", c.Proxy.MaxBody)
	}
	c.validateHead(ps)
	if c.Proxy.Hold < 0 {
		ps.add("proxy.hold", "%s is negative: use 0s to answer at once", c.Proxy.Hold)
	}
	if p := c.Proxy.HealthPath; !strings.HasPrefix(p, "/") || !isRequestURI(p) {
		ps.add("proxy.health_path", "%q is not a path like %s", p, defaultHealthPath)
	} else if strings.Contains(p, "get_server_status") {
		ps.add("proxy.health_path", "with get_server_status Mattermost writes to its database and file store each time: leave it out")
	}
	if c.Proxy.WebsocketIdle < minWebsocketIdle {
		ps.add("proxy.websocket_idle", "%s is less than %s: Mattermost pings every 60s, and needs some time for it", c.Proxy.WebsocketIdle, minWebsocketIdle)
	}
	if name := c.Proxy.UpstreamServerName; name != "" && !isHostName(name) && !isAddress(name) {
		ps.add("proxy.upstream_server_name", "%q is not a host name in lower case, like mattermost.internal", name)
	}
	c.Proxy.Spool.validate(ps)
}

func isRequestURI(s string) bool {
	_, err := url.ParseRequestURI(s)
	return err == nil && !strings.ContainsAny(s, " #")
}
