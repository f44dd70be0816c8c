package admin

import "time"

// The states of a gateway.
const (
	Starting = "starting" // sockets are open, nothing is served yet
	Serving  = "serving"
	Draining = "draining" // waits for calls to end, or stops
)

// Status is everything there is to see of a running gateway. The status page,
// /status and the command line all print this one struct.
type Status struct {
	State       string      `json:"state"` // Starting, Serving or Draining
	Version     string      `json:"version"`
	Domain      string      `json:"domain"`
	Started     time.Time   `json:"started"`
	Listeners   []Listener  `json:"listeners"`
	Certificate Certificate `json:"certificate"`
	Upstreams   []Upstream  `json:"upstreams"`
	WebSockets  int         `json:"websockets"` // open ones to Mattermost
	Media       Media       `json:"media"`
	TURN        TURN        `json:"turn"`
	SelfTests   []SelfTest  `json:"self_tests"` // the latest of each transport; empty before the first
}

// A Listener is one open socket.
type Listener struct {
	Key     string `json:"key"`     // of config.yaml
	Network string `json:"network"` // tcp or udp
	Address string `json:"address"` // as bound
}

// Certificate is the one we show to browsers.
type Certificate struct {
	Source   string    `json:"source"` // acme, files or selfsigned
	Names    []string  `json:"names"`
	Ready    bool      `json:"ready"`
	Issuer   string    `json:"issuer"`
	NotAfter time.Time `json:"not_after"`
	DaysLeft int       `json:"days_left"`
	Expiry   []Expiry  `json:"expiry"`                // of each name
	Error    string    `json:"error,omitempty"`       // of the last attempt to load or renew
	Next     time.Time `json:"next_attempt,omitzero"` // to obtain one that is missing
	Warning  string    `json:"warning,omitempty"`     // what clients may have against it
}

// An Expiry is the end of the certificate for one name.
type Expiry struct {
	Name     string    `json:"name"`
	NotAfter time.Time `json:"not_after"` // zero: there is none
}

// The states of an upstream.
const (
	UpstreamUp      = "up"
	UpstreamIll     = "ill"     // reachable, but not well: used if no other is up
	UpstreamDown    = "down"    // cannot be reached
	UpstreamDrained = "drained" // by command: gets nothing new
)

// An Upstream is one Mattermost node.
type Upstream struct {
	URL        string `json:"url"`
	State      string `json:"state"`           // one of the four
	Up         bool   `json:"up"`              // reachable and well, drained or not
	Error      string `json:"error,omitempty"` // why it is not up
	Requests   int    `json:"requests"`        // under way
	WebSockets int    `json:"websockets"`      // open
}

// Media is what the SFU carries.
type Media struct {
	Enabled bool `json:"enabled"` // false: sfu.mode is not rtcd
	// Addresses are those that clients are told of, for UDP.
	Addresses []string       `json:"addresses"`
	Calls     int            `json:"calls"`
	Sessions  int            `json:"sessions"`
	Paths     map[string]int `json:"paths"` // sessions by network path: udp, tcp, relay; connecting
}

// A SelfTest is one trip through the public port and TURN to the SFU and back.
type SelfTest struct {
	Transport string        `json:"transport"` // tls, tcp or udp
	OK        bool          `json:"ok"`
	Error     string        `json:"error,omitempty"`
	At        time.Time     `json:"at"`
	Took      time.Duration `json:"took"` // ns, all stages together
}

// TURN is what the relay carries.
type TURN struct {
	Enabled     bool           `json:"enabled"`
	Allocations map[string]int `json:"allocations"` // by the client's transport: udp, tcp, tls
	Suspects    []Suspect      `json:"suspects"`    // credentials used as they should not be, the worst first; 20 at most
}

// A Suspect is a TURN credential that is used from many addresses, or by which much
// is relayed that belongs to no call.
type Suspect struct {
	Credential  string    `json:"credential"`       // its user name: expiry:user
	Addresses   int       `json:"addresses"`        // it has allocated from: IPv4, or IPv6 /64; counted up to 64
	Unanswered  int64     `json:"unanswered_bytes"` // relayed to a media server that answered nothing
	Allocations int       `json:"allocations"`      // it holds
	Last        time.Time `json:"last"`             // when one of them began or ended
}
