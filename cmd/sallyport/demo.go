package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"text/template"
	"time"

	"golang.org/x/sync/errgroup"

	"sallyport/gateway"
	"sallyport/gateway/demo"
	"sallyport/sfu/rtcd"
	"sallyport/turn"
)

const (
	demoClient        = "demo" // rtcd client ID
	demoCredentialTTL = time.Hour
	demoSecretFile    = "turn-secret" // names of files that exist in memory only
	demoKeyFile       = "client-key"
)

// demoFlags are the flags of sallyport demo.
type demoFlags struct {
	listen, api, admin string
	port, media        int // port: -1 = that of listen
	log                string
	json               bool
}

// runDemo runs the gateway with a demo application in Mattermost's place.
func runDemo(args []string) int {
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	var f demoFlags
	flags.StringVar(&f.listen, "listen", "127.0.0.1:10443", "`address:port` of HTTPS and TURN, TCP and UDP")
	flags.IntVar(&f.port, "port", -1, "`port` of HTTPS and TURN, instead of that in -listen; 0 takes a free one")
	flags.IntVar(&f.media, "media-port", 8443, "`port` of the media server, TCP and UDP; 0 takes a free one")
	flags.StringVar(&f.api, "api", "127.0.0.1:8045", "`address:port` of the rtcd API")
	flags.StringVar(&f.admin, "admin", "127.0.0.1:9443", "`address:port` of the admin listener")
	flags.StringVar(&f.log, "log", "warn", "`level` of the log: debug, info, warn or error")
	flags.BoolVar(&f.json, "json", false, "print the addresses as one line of JSON")
	if code, ok := parseFlags(flags, args); !ok {
		return code
	}
	logger, _ := newLogger(os.Stderr, gateway.Log{Level: f.log, Format: "text"})
	d, err := newDemo(f, logger)
	if err != nil {
		fmt.Fprintln(os.Stderr, "sallyport demo:", portHint(err, f))
		return 1
	}
	if err := d.announce(os.Stdout, f.json); err != nil {
		logger.Warn("addresses not printed", "err", err)
	}
	return operate(d, logger, func() { logger.Info("the demo has no configuration to reload") })
}

// A demonstration is a gateway and, behind it, the demo application.
type demonstration struct {
	gateway  *gateway.Gateway
	app      *demo.Server
	listener net.Listener // of the application, loopback only
	stop     chan struct{}
}

func newDemo(f demoFlags, logger *slog.Logger) (*demonstration, error) {
	cfg, err := f.config()
	if err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("open the application's port: %w", err)
	}
	cfg.Upstream = []string{"http://" + ln.Addr().String()}
	secret, key := []byte(rand.Text()), []byte(rand.Text()+rand.Text())
	g, err := gateway.New(cfg, gateway.Options{
		Logger: logger, Version: build(),
		ReadFile: memoryFiles(map[string][]byte{demoSecretFile: secret, demoKeyFile: key}),
	})
	if err != nil {
		ln.Close()
		return nil, err
	}
	addrs := g.Addrs()
	app, err := demo.New(demo.Config{
		APIURL: "http://" + addrs.API, ClientID: demoClient, AuthKey: string(key),
		ICEServers: func(user string) []demo.ICEServer { return iceServers(addrs, secret, user) },
		SiteURL:    "https://" + net.JoinHostPort(cfg.Domain, strconv.Itoa(portOf(addrs.HTTPS))),
		Media:      demo.Ports{UDP: portOf(addrs.MediaUDP), TCP: portOf(addrs.MediaTCP)},
		Logger:     logger,
	})
	if err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return &demonstration{gateway: g, app: app, listener: ln, stop: make(chan struct{})}, nil
}

// config is the gateway's default configuration with everything on one
// address, made for a visitor instead of an installation.
func (f demoFlags) config() (gateway.Config, error) {
	public, err := netip.ParseAddrPort(f.listen)
	if err != nil || public.Addr().IsUnspecified() {
		return gateway.Config{}, fmt.Errorf("-listen %q: write one address and a port, like 127.0.0.1:10443", f.listen)
	}
	ip, port := public.Addr(), int(public.Port())
	if f.port >= 0 {
		port = f.port
	}
	if port > 65535 || f.media < 0 || f.media > 65535 {
		return gateway.Config{}, errors.New("-port and -media-port: a port is between 0 and 65535")
	}
	c := gateway.Default()
	c.Domain = ip.String()
	if ip.IsLoopback() {
		c.Domain = "localhost"
	}
	c.Listen = gateway.Listen{HTTPS: joinPort(ip, port), UDP: joinPort(ip, port)}
	c.TLS.Source = gateway.SourceSelfSigned
	c.TLS.HSTS = 0 // it would outlive the demo in the visitor's browser
	c.TURN.SecretFile = demoSecretFile
	c.SFU.UDP, c.SFU.TCP = joinPort(ip, f.media), joinPort(ip, f.media)
	c.SFU.IPv6 = ip.Is6()
	c.SFU.API.Listen = f.api
	c.SFU.API.Clients = []rtcd.Client{{ID: demoClient, KeyFile: demoKeyFile}}
	c.SFU.API.Store = ""
	c.Admin.Listen, c.Admin.Socket = f.admin, "" // a demo beside an installed service must not take its socket
	c.Proxy.Spool.Dir = ""
	c.Drain.Timeout, c.Drain.WebsocketSpread = 0, 0
	return c, nil
}

// Run serves until ctx ends or a part fails.
func (d *demonstration) Run(ctx context.Context) error {
	server := &http.Server{Handler: d.app.Handler(), ReadHeaderTimeout: 10 * time.Second}
	parts, ctx := errgroup.WithContext(ctx)
	parts.Go(func() error {
		if err := server.Serve(d.listener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve the application: %w", err)
		}
		return nil
	})
	gatewayCtx, stopGateway := context.WithCancel(context.WithoutCancel(ctx))
	defer stopGateway()
	parts.Go(func() error { return d.gateway.Run(gatewayCtx) })
	parts.Go(func() error { // the application first: it still has sessions to end
		appCtx, stopApp := context.WithCancel(ctx)
		defer stopApp()
		stopped := make(chan error, 1)
		go func() { stopped <- d.app.Run(appCtx) }()
		select {
		case <-d.stop:
		case <-ctx.Done():
		}
		stopApp()
		err := <-stopped
		stopGateway()
		return errors.Join(err, server.Close())
	})
	return parts.Wait()
}

// Drain ends the demo: nobody minds a demonstration that ends at once.
func (d *demonstration) Drain() { close(d.stop) }

// DrainLimit is how long that can take.
func (d *demonstration) DrainLimit() time.Duration { return time.Minute }

// iceServers returns the three ways to the TURN server. They name the address
// and not "localhost", which a browser may take for ::1.
func iceServers(a gateway.Addrs, secret []byte, user string) []demo.ICEServer {
	name, password := turn.Credentials(secret, user, time.Now().Add(demoCredentialTTL))
	return []demo.ICEServer{{
		URLs: []string{
			"turn:" + a.UDP + "?transport=udp",
			"turn:" + a.HTTPS + "?transport=tcp",
			"turns:" + a.HTTPS + "?transport=tcp",
		},
		Username: name, Credential: password,
	}}
}

// memoryFiles reads secrets that exist nowhere else.
func memoryFiles(files map[string][]byte) func(string) ([]byte, error) {
	return func(name string) ([]byte, error) {
		if b, ok := files[name]; ok {
			return b, nil
		}
		return nil, fmt.Errorf("read %s: %w", name, fs.ErrNotExist)
	}
}

func joinPort(ip netip.Addr, port int) string {
	return net.JoinHostPort(ip.String(), strconv.Itoa(port))
}

func portOf(address string) int {
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		return 0
	}
	return int(a.Port())
}

// portHint says of a port in use which flag moves it; other errors it leaves.
func portHint(err error, f demoFlags) error {
	var op *net.OpError
	if !errors.Is(err, syscall.EADDRINUSE) || !errors.As(err, &op) || op.Addr == nil {
		return err
	}
	name := "-port"
	switch port := portOf(op.Addr.String()); port {
	case f.media:
		name = "-media-port"
	case portOf(f.api):
		name = "-api"
	case portOf(f.admin):
		name = "-admin"
	}
	return fmt.Errorf("%s port %s is in use by another program: stop that one, or choose another port with %s", op.Net, op.Addr, name)
}

// demoAddresses is what sallyport demo -json prints.
type demoAddresses struct {
	URL      string `json:"url"`
	TURN     string `json:"turn_udp"`
	MediaUDP string `json:"media_udp"`
	MediaTCP string `json:"media_tcp"`
	API      string `json:"api"`
	Admin    string `json:"admin"`
}

var demoBanner = template.Must(template.New("").Parse(`
  Sallyport demo

    {{.URL}}

  Open it in two tabs, or in two browsers, and join the same room.
  The certificate is self-signed: the browser warns once, go on to the page.

  media    UDP {{.MediaUDP}}, TCP {{.MediaTCP}}
  TURN     UDP {{.TURN}}, TCP and TLS on the page's own port
  rtcd API http://{{.API}}
  admin    http://{{.Admin}}/metrics

  Browsers ask more of a certificate for TURN/TLS than a click. To force that path:
    chromium --user-data-dir=$(mktemp -d) --ignore-certificate-errors {{.URL}}

  Ctrl-C ends it.

`))

// announce prints where everything is.
func (d *demonstration) announce(w io.Writer, asJSON bool) error {
	a := d.gateway.Addrs()
	https := a.HTTPS
	if p, err := netip.ParseAddrPort(https); err == nil && p.Addr().IsLoopback() {
		https = net.JoinHostPort("localhost", strconv.Itoa(int(p.Port())))
	}
	known := demoAddresses{URL: "https://" + https + "/", TURN: a.UDP, MediaUDP: a.MediaUDP, MediaTCP: a.MediaTCP, API: a.API, Admin: a.Admin}
	if asJSON {
		return json.NewEncoder(w).Encode(known)
	}
	return demoBanner.Execute(w, known)
}
