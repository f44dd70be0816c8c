package gateway

import "time"

// Proxy tunes the reverse proxy to Mattermost.
type Proxy struct {
	// TrustedProxies are the networks (CIDR, or one address) in front of us
	// whose X-Forwarded-For and PROXY headers are believed and which may open
	// any number of connections to the HTTPS port. Empty: nobody's.
	TrustedProxies []string `koanf:"trusted_proxies"`
	// IdleTimeout is how long an idle connection to Mattermost is kept. It
	// must stay below the 60 s after which Mattermost closes its end, or a
	// request is now and then sent into a closing connection.
	IdleTimeout time.Duration `koanf:"idle_timeout"`
	// MaxBody is the largest request body in bytes. 0 leaves the limit to
	// Mattermost.
	MaxBody int64 `koanf:"max_body"`
	// MinRate is how many bytes a second the body of a request must come at,
	// while it is waited for, in any minute. 0 takes any rate.
	MinRate int64 `koanf:"min_rate"`
	// MaxHeader is the largest request header in bytes. A change to more than
	// four times what it was at the start, or 262144, needs a restart.
	MaxHeader int `koanf:"max_header"`
	// MaxURL is the longest path and query in bytes. 0 leaves the limit to
	// MaxHeader.
	MaxURL int `koanf:"max_url"`
	// Robots is what search engines are told with every answer: "noindex",
	// or nothing if empty.
	Robots string `koanf:"robots"`
	// SitePath is the path of Mattermost's SiteURL, if it has one, as in
	// "/chat": access and limits look at what comes behind it.
	SitePath string `koanf:"site_path"`
	// Hold is how long a request waits while no upstream can be reached,
	// as during a restart of Mattermost. 0 answers 502 at once.
	Hold time.Duration `koanf:"hold"`
	// HealthPath is what every upstream is asked for every 5 s: it must answer
	// 200. With a SiteURL below a path, Mattermost's ping is there, too.
	HealthPath string `koanf:"health_path"`
	// WebsocketIdle is how long a WebSocket may be silent on both sides.
	// Mattermost pings every 60 s, so it is at least as long.
	WebsocketIdle time.Duration `koanf:"websocket_idle"`
	// UpstreamCAFile is the PEM file with the CAs that upstreams over https
	// are trusted by. Empty: those of the system.
	UpstreamCAFile string `koanf:"upstream_ca_file"`
	// UpstreamServerName is the name in the certificate of such upstreams.
	// Empty: the host in their URL.
	UpstreamServerName string `koanf:"upstream_server_name"`
	// Spool is where slow transfers wait, so that Mattermost, which gives
	// each 300 s, sees them as fast ones.
	Spool Spool `koanf:"spool"`
}

func defaultProxy() Proxy {
	return Proxy{
		TrustedProxies: []string{}, IdleTimeout: 45 * time.Second,
		Hold: 15 * time.Second, WebsocketIdle: 120 * time.Second, HealthPath: defaultHealthPath,
		MaxHeader: maxHeaderBytes, MaxURL: 8 << 10, MinRate: 500,
		Spool: defaultSpool(),
	}
}
