package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"sallyport/gateway/admin"
)

// waitPoll is how often upstream drain -wait looks.
const waitPoll = 500 * time.Millisecond

var errStillBusy = errors.New("it is drained, but not empty yet")

// upstream lists the Mattermost nodes, takes one out of service, or puts it back.
func upstream(args []string) int {
	actions := []string{"list", "drain", "undrain"}
	if len(args) == 0 || !slices.Contains(actions, args[0]) {
		fmt.Fprintln(os.Stderr, "usage: sallyport upstream list | drain [-wait 2m] [-last] URL | undrain URL\n\n-h after one of them prints its flags.")
		return 2
	}
	action := args[0]
	flags := flag.NewFlagSet("upstream "+action, flag.ContinueOnError)
	phone := telephoneFlags(flags)
	asJSON := flags.Bool("json", false, "print JSON")
	wait, last := new(time.Duration), new(bool)
	if action == "drain" {
		wait = flags.Duration("wait", 0, "wait until no request and no WebSocket is left there, at most this `time`")
		last = flags.Bool("last", false, "also if no other node is left: users are told that Mattermost is under maintenance")
	}
	names := 1
	if action == "list" {
		names = 0
	}
	if code, ok := parseArguments(flags, args[1:], names); !ok {
		return code
	}
	order := drainOrder{flags.Arg(0), *last}
	all, err := phone.upstreams(action, order)
	if err == nil && *wait > 0 {
		all, err = phone.waitEmpty(order, time.After(*wait))
	}
	if all != nil {
		printUpstreams(os.Stdout, all, *asJSON)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "sallyport upstream %s: %v\n", action, err)
		return 1
	}
	return 0
}

// A drainOrder is the body of the commands about one upstream.
type drainOrder struct {
	Upstream string `json:"upstream"`
	Last     bool   `json:"last"`
}

// upstreams carries out an action and returns the upstreams as they are then.
func (t telephone) upstreams(action string, order drainOrder) (all []admin.Upstream, err error) {
	if action == "list" {
		return all, t.ask(http.MethodGet, "/upstreams", nil, &all)
	}
	return all, t.ask(http.MethodPost, "/upstreams/"+action, order, &all)
}

// waitEmpty drains an upstream, again and again, until nothing is left there or late
// comes.
func (t telephone) waitEmpty(order drainOrder, late <-chan time.Time) ([]admin.Upstream, error) {
	for {
		all, err := t.upstreams("drain", order)
		if err != nil {
			return nil, err
		}
		busy := func(u admin.Upstream) bool { return bare(u.URL) == bare(order.Upstream) && u.Requests+u.WebSockets > 0 }
		if !slices.ContainsFunc(all, busy) {
			return all, nil
		}
		select {
		case <-late:
			return all, errStillBusy
		case <-time.After(waitPoll):
		}
	}
}

// bare is a URL without what may be left out when an upstream is named.
func bare(url string) string {
	_, rest, found := strings.Cut(url, "://")
	if !found {
		rest = url
	}
	return strings.TrimSuffix(rest, "/")
}

func printUpstreams(w io.Writer, all []admin.Upstream, asJSON bool) {
	if asJSON {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		_ = e.Encode(all)
		return
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "UPSTREAM\tSTATE\tREQUESTS\tWEBSOCKETS\tREASON")
	for _, u := range all {
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%s\n", printable(u.URL), printable(u.State), u.Requests, u.WebSockets, printable(cell(u.Error)))
	}
	_ = t.Flush()
}
