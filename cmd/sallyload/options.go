package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"sallyport/sfu/peer"
)

// turnLifetime is how long a minted TURN credential is valid; a run is shorter.
const turnLifetime = 24 * time.Hour

// options is the command line.
type options struct {
	link peer.LinkConfig

	calls, users, unmuted int
	screen, camera        bool
	videoBitrate          int // bit/s

	path     peer.Path
	port     uint16
	srtp     peer.SRTP
	turn     turnServer
	channel  bool
	feedback bool
	verify   int // percent of the participants

	ramp, warm, duration time.Duration
	settle               time.Duration // for the tracks to arrive
	pids                 []int

	targets []target // at least one
	compare bool
	relay   *relaySuite // instead of calls; nil without
	names   []string    // of the targets, in tables
	loads   []shape     // of the suite; nil without one
	crowds  bool        // tables tell of coming and going too
	runs    int
	output  string // file for the JSON; "" = standard output
	profile string // directory for the server's profiles; "" = none
	self    string // file for a CPU profile of sallyload; "" = none
	pprof   string // base URL of the profiles; "" = what the target announced as admin
}

// A turnServer is what the command line says of TURN.
type turnServer struct{ urls, user, password string }

// raw holds flags that need a second look.
type raw struct {
	keyFile, secret, secretFile, pids, suite, names string
	port, kbps                                      uint
}

// parse reads the command line. The flag package has already reported its own
// errors to stderr, with the usage.
func parse(args []string, stderr io.Writer) (options, error) {
	o := options{srtp: peer.GCM}
	var r raw
	f := flag.NewFlagSet("sallyload", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.Usage = func() {
		fmt.Fprint(stderr, usage)
		f.PrintDefaults()
	}
	o.define(f, &r)
	var names []string
	for rest := args; ; {
		if err := f.Parse(rest); err != nil {
			return o, err
		}
		if f.NArg() == 0 {
			break
		}
		names, rest = append(names, f.Arg(0)), f.Args()[1:] // flags may follow
	}
	return o, errors.Join(o.complete(r), o.aim(names), o.validate())
}

func (o *options) define(f *flag.FlagSet, r *raw) {
	f.StringVar(&o.link.URL, "api", "http://127.0.0.1:8045", "base URL of the rtcd API, when no target is given")
	f.StringVar(&o.link.ClientID, "client-id", "sallyload", "client ID")
	f.StringVar(&o.link.AuthKey, "auth-key", "Ey4-H_BJA00_TVByPi8DozE12ekN3S7A", "key of the client; it registers with it if it has to")
	f.StringVar(&r.keyFile, "auth-key-file", "", "file that holds the key instead")
	f.BoolVar(&o.link.NoRegister, "no-register", false, "do not try to register the client")
	f.IntVar(&o.calls, "calls", 4, "number of calls")
	f.IntVar(&o.users, "users", 6, "participants per call")
	f.IntVar(&o.unmuted, "unmuted", 2, "participants per call that speak")
	f.BoolVar(&o.screen, "screen", false, "the first participant of each call shares a screen")
	f.BoolVar(&o.camera, "camera", false, "the first two participants of each call turn their camera on")
	f.UintVar(&r.kbps, "video-kbps", 1000, "bitrate of a screen or camera")
	f.Var(&o.path, "path", "auto, udp, tcp, turn-udp, turn-tcp or turn-tls")
	f.UintVar(&r.port, "port", 0, "use the server's candidates on this port only")
	f.Var(&o.srtp, "srtp", "encryption that participants offer: gcm (AEAD_AES_128_GCM), aes-cm (AES128_CM_HMAC_SHA1_80) or any")
	f.StringVar(&o.turn.urls, "turn", "", "TURN URLs, separated by commas; {name} stands for an address that a started target announced")
	f.StringVar(&r.secret, "turn-secret", "", "TURN static auth secret to mint credentials with")
	f.StringVar(&r.secretFile, "turn-secret-file", "", "file that holds the secret instead")
	f.StringVar(&o.turn.user, "turn-user", "", "TURN user name, when there is no secret")
	f.StringVar(&o.turn.password, "turn-pass", "", "TURN password, when there is no secret")
	f.BoolVar(&o.channel, "dc", false, "signal over the data channel")
	f.BoolVar(&o.feedback, "feedback", false, "report like a browser: RTCP reports, NACK, congestion feedback; all participants verify then")
	f.IntVar(&o.verify, "verify", 10, "percent of the participants of each call, but at least one, that decrypt and check all they get; the others count packets, which costs a fraction. Over TCP and TLS all verify")
	f.DurationVar(&o.ramp, "ramp", 50*time.Millisecond, "time between two joins")
	f.DurationVar(&o.settle, "settle", time.Minute, "longest wait for all tracks to arrive")
	f.DurationVar(&o.warm, "warm", 5*time.Second, "time between the last track and measuring")
	f.DurationVar(&o.duration, "duration", 15*time.Second, "time measured")
	f.StringVar(&r.pids, "pid", "", "process IDs of a server that sallyload did not start, separated by commas or blanks")
	f.BoolVar(&o.compare, "compare", false, "run the load against two targets in turn and print medians and ratios")
	f.StringVar(&r.names, "names", "A,B", "what tables call the targets, separated by commas")
	f.StringVar(&r.suite, "suite", "", "run a list of loads instead of one: "+suiteNames())
	f.IntVar(&o.runs, "runs", 0, "runs of each load against each target, of which the median counts; 0 = 5 with -compare or -suite, otherwise 1")
	f.StringVar(&o.profile, "profile", "", "directory for CPU, allocation and mutex profiles of the server, taken of the time measured")
	f.StringVar(&o.self, "self-profile", "", "file for a CPU profile of sallyload itself")
	f.StringVar(&o.pprof, "pprof", "", "base URL of the server's /debug/pprof; a started target announces it as admin")
	f.StringVar(&o.output, "json", "", "file for the JSON; with -compare, -suite or -runs a table is printed")
}

// complete fills in what the raw flags mean.
func (o *options) complete(r raw) error {
	if r.port > 65535 {
		return fmt.Errorf("-port %d is none", r.port)
	}
	if r.kbps < 100 || r.kbps > 100_000 {
		return fmt.Errorf("-video-kbps %d: want 100 to 100000", r.kbps)
	}
	o.port, o.videoBitrate = uint16(r.port), int(r.kbps)*1000
	if err := readSecret(r.keyFile, &o.link.AuthKey); err != nil {
		return err
	}
	if err := readSecret(r.secretFile, &r.secret); err != nil {
		return err
	}
	if r.secret != "" {
		o.turn.user, o.turn.password = credentials(r.secret, time.Now().Add(turnLifetime))
	}
	var err error
	if o.pids, err = parsePIDs(r.pids); err != nil {
		return err
	}
	if name, patterns, some := strings.Cut(r.suite, ":"); name == relaySuiteName {
		o.relay = &relaySuite{}
		if some {
			o.relay.patterns = strings.Split(patterns, ",")
		}
	} else if r.suite != "" {
		if o.loads, err = suite(r.suite); err != nil {
			return err
		}
		o.crowds = strings.HasPrefix(r.suite, "big")
	}
	if o.names = strings.Split(r.names, ","); len(o.names) < 2 {
		o.names = append(o.names, "B")
	}
	if o.feedback {
		o.verify = 100
	}
	if o.runs == 0 {
		o.runs = 1
		if o.compare || o.relay != nil || o.loads != nil {
			o.runs = 5
		}
	}
	return nil
}

// parsePIDs reads process IDs separated by commas or blanks.
func parsePIDs(list string) (pids []int, err error) {
	for _, s := range strings.FieldsFunc(list, func(c rune) bool { return c == ',' || c == ' ' }) {
		pid, err := strconv.Atoi(s)
		if err != nil || pid <= 0 {
			return nil, fmt.Errorf("%q is no process ID", s)
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// aim finds out what is under load.
func (o *options) aim(names []string) error {
	switch n := len(names); {
	case o.relay != nil && n != 3:
		return fmt.Errorf("-suite relay wants three targets, got %d", n)
	case o.relay == nil && (o.compare && n != 2 || n > 2):
		return fmt.Errorf("-compare wants two targets, got %d", n)
	case n == 2 && !o.compare:
		return errors.New("two targets need -compare")
	}
	if len(names) == 0 {
		names = []string{o.link.URL}
	}
	for i, name := range names {
		t, err := parseTarget(name)
		if err != nil {
			return err
		}
		if t.pids == nil && t.argv == nil && i == 0 {
			t.pids = o.pids
		} else if len(o.pids) > 0 && i == 0 {
			return fmt.Errorf("-pid belongs to a target that is running, not to %q", name)
		}
		o.targets = append(o.targets, t)
	}
	return nil
}

func (o *options) validate() error {
	switch {
	case o.calls < 1 || o.users < 1:
		return errors.New("-calls and -users must be at least 1")
	case o.calls*o.users > 20_000:
		return fmt.Errorf("%d participants are more than one process carries: at most 20000", o.calls*o.users)
	case o.unmuted < 0 || o.unmuted > o.users:
		return fmt.Errorf("-unmuted %d is not between 0 and -users", o.unmuted)
	case o.ramp < 0 || o.warm < 0 || o.settle < 0 || o.duration <= 0:
		return errors.New("-ramp, -warm and -settle must not be negative, -duration must be positive")
	case o.verify < 0 || o.verify > 100:
		return fmt.Errorf("-verify %d is no percentage", o.verify)
	case o.runs < 0:
		return fmt.Errorf("-runs %d is negative", o.runs)
	case o.relay != nil && o.turn.urls == "":
		return errors.New("-suite relay needs -turn")
	case o.path >= peer.TURNUDP && o.turn.urls == "":
		return fmt.Errorf("-path %s needs -turn", o.path)
	}
	return nil
}

// readSecret replaces *into by the content of a file, if one is named.
func readSecret(file string, into *string) error {
	if file == "" {
		return nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("read secret: %w", err)
	}
	*into = string(bytes.TrimSpace(b))
	return nil
}

// credentials mints a time-limited TURN user, as the Calls plugin does.
func credentials(secret string, expiry time.Time) (user, password string) {
	user = strconv.FormatInt(expiry.Unix(), 10) + ":sallyload"
	mac := hmac.New(sha1.New, []byte(secret))
	mac.Write([]byte(user))
	return user, base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// servers returns the TURN servers for a path, with what the target announced
// filled in.
func (t turnServer) servers(p peer.Path, announced map[string]string) ([]peer.ICEServer, error) {
	if t.urls == "" || p == peer.UDP || p == peer.TCP {
		return nil, nil
	}
	urls := t.urls
	for name, value := range announced {
		urls = strings.ReplaceAll(urls, "{"+name+"}", value)
	}
	if strings.Contains(urls, "{") {
		return nil, fmt.Errorf("fill in -turn %s: %w", urls, errNotAnnounced)
	}
	return []peer.ICEServer{{URLs: strings.Split(urls, ","), Username: t.user, Credential: t.password}}, nil
}

// verifies says whether participant i of a call decrypts what it gets. Those who
// do are spread evenly, as servers serve some before others.
func (o *options) verifies(i int) bool {
	n := max((o.users*o.verify+99)/100, 1)
	return (i+1)*n/o.users > i*n/o.users
}

// speaks, shares and films say what participant i of a call publishes.
func (o *options) speaks(i int) bool { return i < o.unmuted }
func (o *options) shares(i int) bool { return o.screen && i == 0 }
func (o *options) films(i int) bool  { return o.camera && i < 2 }

// published is the number of tracks of one call.
func (o *options) published() int {
	n := 0
	for i := range o.users {
		for _, does := range []bool{o.speaks(i), o.shares(i), o.films(i)} {
			if does {
				n++
			}
		}
	}
	return n
}
