package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"sallyport/gateway/doctor"
)

// doctorFlags are the flags of sallyport doctor.
type doctorFlags struct {
	config, address, admin, only string
	json, demo                   bool
}

// runDoctor examines the installation that a configuration describes, or a
// running demo.
func runDoctor(args []string) int {
	flags := flag.NewFlagSet("doctor", flag.ContinueOnError)
	var f doctorFlags
	name := configFlag(flags)
	flags.StringVar(&f.address, "address", "", "`host:port` to connect to for HTTPS and TURN, in place of the domain: before DNS is there, or from another network")
	flags.StringVar(&f.admin, "admin", "", "`address` of the admin listener, in place of the configuration's")
	flags.StringVar(&f.only, "only", "", "make only the checks whose ID begins with one of these `prefixes`, separated by commas")
	flags.BoolVar(&f.json, "json", false, "print one JSON object")
	flags.BoolVar(&f.demo, "demo", false, "examine a running `sallyport demo`, without a configuration file")
	if code, ok := parseFlags(flags, args); !ok {
		return code
	}
	f.config = *name
	if fault := f.check(); fault != nil {
		fmt.Fprintln(os.Stderr, "sallyport doctor:", fault)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	target, ok := f.target()
	if !ok {
		return 1
	}
	report := doctor.Run(ctx, target)
	report.Version = build().Number
	write := report.WriteText
	if f.json {
		write = report.WriteJSON
	}
	if err := write(os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "sallyport doctor:", err)
		return 1
	}
	if report.Failed() {
		return 1
	}
	return 0
}

// check says what is wrong with the flags.
func (f *doctorFlags) check() error {
	if f.address != "" {
		if _, port, err := net.SplitHostPort(f.address); err != nil || portNumber(port) == 0 {
			return fmt.Errorf("-address %q: write a host and a port, like 192.0.2.1:443", f.address)
		}
	}
	for _, prefix := range f.prefixes() {
		if !slices.ContainsFunc(doctor.IDs(), func(id string) bool { return strings.HasPrefix(id, prefix) }) {
			return fmt.Errorf("-only %q: no check begins so; there are %s", prefix, strings.Join(doctor.IDs(), " "))
		}
	}
	return nil
}

func (f *doctorFlags) prefixes() []string {
	if f.only == "" {
		return nil
	}
	return strings.Split(f.only, ",")
}

// target says where everything is. When it cannot, it has said why.
func (f *doctorFlags) target() (doctor.Target, bool) {
	var t doctor.Target
	if f.demo {
		var err error
		if t, err = f.demoTarget(); err != nil {
			fmt.Fprintln(os.Stderr, "sallyport doctor:", err)
			return t, false
		}
	} else {
		l := load(f.config, os.Environ())
		if len(l.faults) > 0 {
			printComplaints(os.Stderr, "", l.faults)
			return t, false
		}
		t = f.targetOf(l.Config)
		addSecrets(&t, l.Config)
		if running, err := adminStatus(strings.TrimPrefix(t.AdminURL, "http://")); err == nil {
			locateMedia(&t, running)
		}
	}
	t.Only = f.prefixes()
	return t, true
}
