// Command proxy compares Sallyport, as a reverse proxy, with nginx as
// Mattermost documents it and with Caddy: processor time of the proxy's
// processes for each request, the 99th percentile of latency, and memory for each
// idle WebSocket, all over TLS. It is a measuring rod, not a product: it is in
// no release.
//
//	proxy [-runs 5] [-duration 2.5s] [-profile DIR] -dir DIR NAME=PROGRAM …
//
// NAME is sallyport, nginx or caddy; the first is what the others are compared
// with. DIR holds cert.pem and key.pem, and takes everything that is written.
// Each run starts every program afresh, in turn, and puts wrk and h2load in front
// of it and a cheap server behind it. The table goes to standard output.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// options are the flags.
type options struct {
	runs     int
	duration time.Duration
	settle   time.Duration
	dir      string
	loads    string
	sockets  bool
	upstream string
	profile  string
}

func main() {
	var o options
	flag.IntVar(&o.runs, "runs", 5, "how often everything is measured; the table has medians")
	flag.DurationVar(&o.duration, "duration", 2500*time.Millisecond, "of each load")
	flag.DurationVar(&o.settle, "settle", 6*time.Second, "from the last WebSocket opened until memory is looked at")
	flag.StringVar(&o.dir, "dir", "", "directory with cert.pem and key.pem")
	flag.StringVar(&o.loads, "loads", "", "only loads whose name contains this")
	flag.BoolVar(&o.sockets, "sockets", true, "measure WebSockets too")
	flag.StringVar(&o.profile, "profile", "", "directory for CPU profiles of Sallyport under load, and the number of requests in each")
	flag.StringVar(&o.upstream, "upstream", "", "serve as the upstream on this address, and do nothing else")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "proxy:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options, args []string) error {
	if o.upstream != "" {
		return serveUpstream(ctx, o.upstream)
	}
	var proxies []string
	programs := map[string]string{}
	for _, arg := range args {
		name, program, ok := strings.Cut(arg, "=")
		if !ok || configs[name].file == "" {
			return fmt.Errorf("%q is not NAME=PROGRAM", arg)
		}
		proxies, programs[name] = append(proxies, name), program
	}
	if len(proxies) == 0 || o.dir == "" {
		return fmt.Errorf("nothing to measure")
	}
	b := &bench{options: o, programs: programs, results: results{}}
	up, err := startUpstream(ctx)
	if err != nil {
		return err
	}
	defer up.stop()
	b.upstreamAddr = up.addr
	for i := range o.runs {
		for _, name := range proxies {
			fmt.Fprintf(os.Stderr, "run %d of %d: %s\n", i+1, o.runs, name)
			if err := b.measure(ctx, name); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	b.results.print(os.Stdout, proxies, o.runs)
	if o.profile != "" {
		return b.takeProfiles(ctx)
	}
	return nil
}
