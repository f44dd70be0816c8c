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
	servers  []peer.ICEServer
	channel  bool
	feedback bool

	ramp, warm, duration time.Duration
	settle               time.Duration // for the tracks to arrive
	pids                 []int
}

// raw holds flags that need a second look.
type raw struct {
	keyFile, turn, secret, secretFile, user, password, pids string
	port, kbps                                              uint
}

// parse reads the command line. The flag package has already reported its own
// errors to stderr, with the usage.
func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	var r raw
	f := flag.NewFlagSet("sallyload", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&o.link.URL, "api", "http://127.0.0.1:8045", "base URL of the rtcd API")
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
	f.StringVar(&r.turn, "turn", "", "TURN URLs, separated by commas")
	f.StringVar(&r.secret, "turn-secret", "", "TURN static auth secret to mint credentials with")
	f.StringVar(&r.secretFile, "turn-secret-file", "", "file that holds the secret instead")
	f.StringVar(&r.user, "turn-user", "", "TURN user name, when there is no secret")
	f.StringVar(&r.password, "turn-pass", "", "TURN password, when there is no secret")
	f.BoolVar(&o.channel, "dc", false, "signal over the data channel")
	f.BoolVar(&o.feedback, "feedback", false, "report like a browser: RTCP reports, NACK, congestion feedback")
	f.DurationVar(&o.ramp, "ramp", 50*time.Millisecond, "time between two joins")
	f.DurationVar(&o.settle, "settle", time.Minute, "longest wait for all tracks to arrive")
	f.DurationVar(&o.warm, "warm", 5*time.Second, "time between the last track and measuring")
	f.DurationVar(&o.duration, "duration", 15*time.Second, "time measured")
	f.StringVar(&r.pids, "pid", "", "process IDs of the server, separated by commas or blanks")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	return o, errors.Join(o.complete(r), o.validate())
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
		r.user, r.password = credentials(r.secret, time.Now().Add(turnLifetime))
	}
	if r.turn != "" {
		o.servers = []peer.ICEServer{{URLs: strings.Split(r.turn, ","), Username: r.user, Credential: r.password}}
	}
	for _, s := range strings.FieldsFunc(r.pids, func(c rune) bool { return c == ',' || c == ' ' }) {
		pid, err := strconv.Atoi(s)
		if err != nil || pid <= 0 {
			return fmt.Errorf("-pid %q is no process ID", s)
		}
		o.pids = append(o.pids, pid)
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
	case o.path >= peer.TURNUDP && len(o.servers) == 0:
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
