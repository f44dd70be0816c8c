package doctor

import (
	"cmp"
	"context"
	"crypto/x509"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"sallyport/sfu/peer"
)

const (
	checkLimit = 5 * time.Second // unless the check has a limit of its own
	pingLate   = 2 * time.Second // the gateway itself waits no longer for a ping
	callLimit  = 10 * time.Second
)

// A Target is an installation to be examined. Only Host is required; checks
// for which something is missing are skipped.
type Target struct {
	// Host is the public name, as users write it. Port is the public HTTPS
	// port; 0 means 443.
	Host string
	Port uint16
	// HTTPSAddress is the host:port to connect to for HTTPS, TURN/TCP and
	// TURN/TLS. Empty means Host and Port. The name in SNI, Host and Origin is
	// Host in any case.
	HTTPSAddress string
	// HTTPAddress is the host:port that redirects to HTTPS; empty: off.
	HTTPAddress string
	// UDPAddress is the host:port of TURN/UDP and direct media; empty: off.
	UDPAddress string
	// MediaUDP and MediaTCP are media sockets of the SFU as TURN clients name
	// them, host:port. An empty host means that of HTTPSAddress. Empty: no SFU
	// of ours, or no ICE-TCP.
	MediaUDP, MediaTCP string

	// APIURL is the base of the rtcd API; empty: off. ClientID and ClientKey
	// are the credentials of one of its clients; empty: no calls are made.
	APIURL, ClientID, ClientKey string
	// AdminURL is the base of the admin listener.
	AdminURL string
	// Upstream are the base URLs of Mattermost, or unix: and a path.
	Upstream []string
	// UpstreamRoots are the CAs that vouch for upstreams over https, nil: the
	// system's. UpstreamName is the name in their certificates; empty: that in
	// the URL.
	UpstreamRoots *x509.CertPool
	UpstreamName  string
	// PingPath and WebSocketPath are where the health check is, which is
	// answered with 200, and the WebSocket. Empty: Mattermost's.
	PingPath, WebSocketPath string
	// SitePath is the path of Mattermost's SiteURL, such as /chat; empty: none.
	SitePath string
	// TURNUsername and TURNPassword are credentials as the Calls plugin mints
	// them. Empty: TURN is not examined.
	TURNUsername, TURNPassword string
	// RelayTo is whom TURN may relay to, as configured.
	RelayTo []string
	// Secrets are the files whose permissions matter.
	Secrets []SecretFile
	// TLS13Only says that TLS 1.2 is refused on purpose.
	TLS13Only bool

	// Roots are the certification authorities to trust; nil: the system's.
	Roots *x509.CertPool
	// LookupHost resolves a name; nil: the system's resolver.
	LookupHost func(ctx context.Context, host string) ([]string, error)
	// Proc is where the kernel tells its settings; empty: /proc.
	Proc string
	// Only, if not empty, are the prefixes of the IDs of checks to run.
	Only []string
}

// A SecretFile is a file that holds a secret.
type SecretFile struct {
	Key  string // of the configuration, such as turn.secret_file
	Name string // of the file
	// Problem is what the configuration's own reading found wrong with the
	// content; empty: nothing.
	Problem string
}

// A check answers one question about a target.
type check struct {
	group string // printed together
	id    string // stable: others look for it in the JSON
	limit time.Duration
	run   func(ctx context.Context, t *Target) result
}

// The groups of checks.
const (
	groupProcess = "Configuration and process"
	groupName    = "Name and certificate"
	groupWeb     = "Web"
	groupRelay   = "TURN"
	groupCalls   = "Calls"
	groupHost    = "Host"
)

// checks returns every check, in the order of the report.
func checks() []check {
	return []check{
		{groupProcess, "config.secrets", checkLimit, checkSecrets},
		{groupProcess, "process.ready", checkLimit, checkReady},
		{groupName, "dns.resolve", checkLimit, checkDNS},
		{groupName, "tls.certificate", checkLimit, checkCertificate},
		{groupName, "tls.versions", checkLimit, checkVersions},
		{groupWeb, "http.h2", checkLimit, checkH2},
		{groupWeb, "http.extended-connect", checkLimit, checkExtendedConnect},
		{groupWeb, "http.redirect", checkLimit, checkRedirect},
		{groupWeb, "upstream.ping", checkLimit, checkUpstream},
		{groupWeb, "proxy.ping", checkLimit, checkProxy},
		{groupWeb, "websocket.upgrade", checkLimit, checkWebSocket},
		{groupWeb, "mattermost.site-url", checkLimit, checkSiteURL},
		{groupRelay, "turn.udp", callLimit, checkTURN(peer.TURNUDP)},
		{groupRelay, "turn.tcp", callLimit, checkTURN(peer.TURNTCP)},
		{groupRelay, "turn.tls", callLimit, checkTURN(peer.TURNTLS)},
		{groupRelay, "turn.closed-relay", checkLimit, checkClosedRelay},
		{groupCalls, "rtcd.version", checkLimit, checkRTCD},
		{groupCalls, "call.udp", callLimit, checkCall(peer.UDP)},
		{groupCalls, "call.shared-udp", callLimit, checkSharedUDP},
		{groupCalls, "call.tcp", callLimit, checkCall(peer.TCP)},
		{groupCalls, "call.turn-tls", callLimit, checkCall(peer.TURNTLS)},
		{groupHost, "host.fds", checkLimit, checkFiles},
		{groupHost, "host.udp-buffers", checkLimit, checkBuffers},
		{groupHost, "host.clock", checkLimit, checkClock},
	}
}

// IDs returns the identifiers of all checks, in the order of the report.
func IDs() []string {
	var all []string
	for _, c := range checks() {
		all = append(all, c.id)
	}
	return all
}

// Run makes the checks of t at once and returns when the last has answered,
// which takes about ten seconds at most. The end of ctx ends it earlier; what
// had no answer by then has failed. Run waits for everything it started.
func Run(ctx context.Context, t Target) Report {
	t.complete()
	wanted := slices.DeleteFunc(checks(), func(c check) bool { return !t.wants(c.id) })
	r := Report{Checks: make([]Check, len(wanted))}
	var running sync.WaitGroup
	for i, c := range wanted {
		running.Go(func() { r.Checks[i] = c.do(ctx, &t) })
	}
	running.Wait()
	return r
}

// do makes the check, within its limit.
func (c check) do(ctx context.Context, t *Target) Check {
	ctx, cancel := context.WithTimeout(ctx, c.limit)
	defer cancel()
	began := time.Now()
	got := c.run(ctx, t)
	return Check{
		ID: c.id, Status: got.status, Text: oneLine(got.text), Fix: oneLine(got.fix),
		Milliseconds: time.Since(began).Milliseconds(), group: c.group,
	}
}

func (t *Target) wants(id string) bool {
	return len(t.Only) == 0 || slices.ContainsFunc(t.Only, func(prefix string) bool { return strings.HasPrefix(id, prefix) })
}

// complete fills in what t leaves open.
func (t *Target) complete() {
	t.Port = cmp.Or(t.Port, 443)
	t.PingPath = cmp.Or(t.PingPath, pingPath)
	t.WebSocketPath = cmp.Or(t.WebSocketPath, "/api/v4/websocket")
	t.Proc = cmp.Or(t.Proc, "/proc")
	t.HTTPSAddress = cmp.Or(t.HTTPSAddress, net.JoinHostPort(t.Host, t.port()))
	if t.LookupHost == nil {
		t.LookupHost = net.DefaultResolver.LookupHost
	}
}

func (t *Target) port() string { return strconv.Itoa(int(t.Port)) }

// origin is how browsers name the site: https://Host, and the port if it is
// not 443.
func (t *Target) origin() string {
	u := url.URL{Scheme: "https", Host: net.JoinHostPort(t.Host, t.port())}
	if t.Port == 443 {
		u.Host = strings.TrimSuffix(u.Host, ":443")
	}
	return u.String()
}
