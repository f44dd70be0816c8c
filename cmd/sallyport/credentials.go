package main

import (
	"cmp"
	"flag"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"sallyport/gateway"
	"sallyport/turn"
)

// turnCredentials mints credentials of the kind the Calls plugin hands out, to
// try the TURN server with.
func turnCredentials(args []string) int {
	flags := flag.NewFlagSet("turn-credentials", flag.ContinueOnError)
	name := configFlag(flags)
	user := flags.String("user", "", "`name` of the user that the credentials are for (required)")
	ttl := flags.Duration("ttl", 4*time.Hour, "how long they are valid")
	asJSON := flags.Bool("json", false, "print one JSON object, of the form of an RTCIceServer")
	if code, ok := parseFlags(flags, args); !ok {
		return code
	}
	if fault := credentialsFault(*user, *ttl); fault != "" {
		fmt.Fprintln(os.Stderr, "sallyport turn-credentials:", fault)
		return 2
	}
	l := load(*name, os.Environ())
	if len(l.faults) > 0 {
		printComplaints(os.Stderr, "", l.faults)
		return 1
	}
	if !l.TURN.Enabled {
		fmt.Fprintln(os.Stderr, "sallyport turn-credentials: turn.enabled is false")
		return 1
	}
	only := l.Config // the keys of clients are none of our business here
	only.SFU.API.Clients = nil
	secrets, problems := gateway.ReadSecrets(only, nil)
	if len(problems) > 0 {
		for _, p := range problems {
			fmt.Fprintln(os.Stderr, l.complaint(p))
		}
		return 1
	}
	username, password := turn.Credentials(secrets.TURN[0], *user, time.Now().Add(*ttl))
	urls := turnURLs(l.Config)
	if *asJSON {
		return printJSON(struct {
			URLs       []string `json:"urls"`
			Username   string   `json:"username"`
			Credential string   `json:"credential"`
		}{urls, username, password})
	}
	fmt.Printf("username: %s\npassword: %s\nurls:\n", username, password)
	for _, u := range urls {
		fmt.Println("  " + u)
	}
	return 0
}

func credentialsFault(user string, ttl time.Duration) string {
	switch {
	case user == "":
		return "-user is missing"
	case len(user) > 128 || strings.ContainsFunc(user, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "-user is longer than 128 bytes or has characters other than printable ASCII"
	case ttl < time.Second:
		return "-ttl is less than a second"
	}
	return ""
}

// turnURLs returns the URLs under which c serves TURN, the quickest way first.
func turnURLs(c gateway.Config) []string {
	at := func(listen string) string {
		_, port, err := net.SplitHostPort(listen)
		if err != nil {
			return c.Domain
		}
		return net.JoinHostPort(cmp.Or(c.Domain, "localhost"), port)
	}
	var urls []string
	if c.Listen.UDP != "" {
		urls = append(urls, "turn:"+at(c.Listen.UDP)+"?transport=udp")
	}
	return append(urls,
		"turn:"+at(c.Listen.HTTPS)+"?transport=tcp",
		"turns:"+at(c.Listen.HTTPS)+"?transport=tcp",
	)
}
