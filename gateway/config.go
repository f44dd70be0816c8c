package gateway

import (
	"time"

	"sallyport/sfu"
	"sallyport/sfu/rtcd"
	"sallyport/tls"
	"sallyport/turn"
)

// Config is everything an administrator may set: one field for each key of
// config.yaml, sections in the same order. The types of the sections live
// beside the code they configure.
//
// Start from Default: the zero Config listens on nothing.
type Config struct {
	// Domain is the public host name, for example chat.example.com: the name
	// in the certificate, and the TURN realm unless that is set. Required.
	Domain string `koanf:"domain"`
	// Upstream lists the base URLs of Mattermost, one for each node of a
	// cluster. In YAML a single URL may stand without a list. At least one.
	Upstream []string `koanf:"upstream"`
	// Listen says where the public listeners bind. A change needs a restart.
	Listen Listen `koanf:"listen"`
	// TLS is where the certificate comes from and what it is served with.
	TLS tls.Config `koanf:"tls"`
	// Proxy tunes the way to Mattermost.
	Proxy Proxy `koanf:"proxy"`
	// Limits bounds what one client may do at a time.
	Limits Limits `koanf:"limits"`
	// Access says who may ask Mattermost for what.
	Access Access `koanf:"access"`
	// TURN relays media of clients behind strict firewalls to our SFU.
	TURN turn.Config `koanf:"turn"`
	// SFU routes the media of calls.
	SFU SFU `koanf:"sfu"`
	// Admin is the second, private listener.
	Admin Admin `koanf:"admin"`
	// Log says what is logged and how.
	Log Log `koanf:"log"`
	// Drain bounds an orderly stop.
	Drain Drain `koanf:"drain"`
	// Reload says what starts a reload, beside a signal or a command.
	Reload Reload `koanf:"reload"`
}

// Listen holds the public listeners, each as "[address]:port". An empty
// address means all of them.
type Listen struct {
	// HTTPS is the TCP port of everything: HTTPS, WebSocket, TURN over TLS,
	// TURN over TCP and ICE-TCP. Required.
	HTTPS string `koanf:"https"`
	// HTTP answers ACME's HTTP-01 challenge and redirects the rest to HTTPS.
	// Empty turns it off.
	HTTP string `koanf:"http"`
	// UDP is TURN over UDP and, with sfu.mode rtcd, a second UDP port of the
	// media. Without a host it is open on every address, and clients are told
	// of those that sfu.udp uses. Empty turns it off.
	UDP string `koanf:"udp"`
}

// SFU is the media server and the API that the Calls plugin drives it with.
type SFU struct {
	sfu.Config `koanf:",squash"`
	// API is the rtcd-compatible HTTP and WebSocket interface.
	API rtcd.Config `koanf:"api"`
}

// Admin is the private listener, and the socket for commands.
type Admin struct {
	// Listen is the TCP address of /metrics, /healthz, /readyz, /status and
	// /debug/pprof. Nothing there asks for a password: it must not be public.
	Listen string `koanf:"listen"`
	// Socket is the path of the Unix socket that commands come in at, open to
	// this process's user and root alone. If it is the default and its
	// directory does not exist, there is none. Empty turns it off.
	Socket string `koanf:"socket"`
}

// Log says what is logged to standard error.
type Log struct {
	// Level is debug, info, warn or error. A reload applies it.
	Level string `koanf:"level"`
	// Format is json or text. A reload applies it.
	Format string `koanf:"format"`
	// Access says which requests are told at level info: off, errors (those
	// answered 5xx, one a second at most) or all. Level debug tells all in any
	// case. A reload applies it.
	Access string `koanf:"access"`
	// Sample is of how many requests answered 1xx to 3xx one is told, with
	// Access all. A reload applies it.
	Sample int `koanf:"sample"`
}

// Drain bounds an orderly stop.
type Drain struct {
	// Timeout is how long a stopping process waits for calls to end.
	// 0 waits for none.
	Timeout time.Duration `koanf:"timeout"`
	// WebsocketSpread is the time over which the WebSocket connections of
	// Mattermost's clients are closed, so that they do not all come back in
	// the same second.
	WebsocketSpread time.Duration `koanf:"websocket_spread"`
}

// Reload says what starts a reload.
type Reload struct {
	// Watch lets a change of the configuration file, or of a secret that it
	// names, do it.
	Watch bool `koanf:"watch"`
}

// The values of keys that take one of a few words.
const (
	SourceACME       = "acme"
	SourceFiles      = "files"
	SourceSelfSigned = "selfsigned"

	ModeRTCD    = "rtcd"
	ModeForward = "forward"
	ModeOff     = "off"

	// RelayToSFU is the entry of turn.relay_to that stands for our own SFU.
	RelayToSFU = "sfu"
)

// defaultSocket is where the socket of an installed service is.
const defaultSocket = "/run/sallyport/admin.sock"

func defaultDNS() tls.DNS {
	return tls.DNS{
		RFC2136: tls.RFC2136{KeyAlgorithm: "hmac-sha256"}, Exec: []string{}, Propagation: 2 * time.Minute, Resolvers: []string{},
	}
}

// Default returns the configuration that an empty file stands for. It lacks
// only what nobody can guess: the domain and the TURN secret.
func Default() Config {
	return Config{
		Upstream: []string{"http://127.0.0.1:8065"},
		Listen:   Listen{HTTPS: ":443", HTTP: ":80", UDP: ":443"},
		TLS: tls.Config{
			Source:     SourceACME,
			ACME:       tls.ACME{CA: "letsencrypt", Storage: "/var/lib/sallyport/acme", KeyType: "p256", DNS: defaultDNS()},
			Names:      []string{},
			MinVersion: "1.2",
			ClientAuth: tls.ClientAuth{Mode: tls.ClientAuthOff},
			HSTS:       4380 * time.Hour,
		},
		Proxy:  defaultProxy(),
		Limits: defaultLimits(),
		Access: defaultAccess(),
		TURN: turn.Config{
			Enabled:         true,
			RelayTo:         []string{RelayToSFU},
			MaxAllocations:  20000,
			UserAllocations: 24,
		},
		SFU: SFU{
			Config: sfu.Config{Mode: ModeRTCD, UDP: ":8443", TCP: ":8443", Advertise: []string{}},
			API: rtcd.Config{
				Listen:  "127.0.0.1:8045",
				Clients: []rtcd.Client{},
				Store:   "/var/lib/sallyport/clients",
			},
		},
		Admin: Admin{Listen: "127.0.0.1:9443", Socket: defaultSocket},
		Log:   Log{Level: "info", Format: "json", Access: accessErrors, Sample: 1},
		Drain: Drain{Timeout: 2 * time.Hour, WebsocketSpread: 15 * time.Second},
	}
}
