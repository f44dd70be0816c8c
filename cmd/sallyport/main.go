// Command sallyport is the gateway in front of Mattermost: TLS, reverse proxy,
// TURN and the media server of Mattermost Calls in one process.
//
// This package is its command line: it reads the configuration, calls the
// packages that do the work, and turns what they return into exit codes.
// 0 means done, 1 that something failed, 2 that the command line is wrong.
package main

import (
	"fmt"
	"os"
	"strings"
)

// A command is one subcommand. run gets the arguments after its name and
// returns the exit code.
type command struct {
	name, arguments, summary string
	run                      func(args []string) int
}

// commands lists the subcommands in the order of the usage text.
func commands() []command {
	return []command{
		{"serve", "[-config FILE]", "run the gateway (the default)", serve},
		{"demo", "", "run the gateway with a demo application, without any file", runDemo},
		{"check", "[-config FILE]", "check the configuration and print what it amounts to", check},
		{"doctor", "[-json] [-config FILE]", "examine the installation from outside, and say what to do", runDoctor},
		{"status", "[-json] [-config FILE]", "print what the running gateway is doing", status},
		{"upstream", "list | drain URL | undrain URL", "take a Mattermost node out of service, or put it back", upstream},
		{"reload", "[-config FILE]", "have the running gateway read its configuration again", reloadRunning},
		{"turn-credentials", "-user NAME [-ttl 4h]", "mint TURN credentials from the configured secret", turnCredentials},
		{"version", "[-json]", "print build information", version},
	}
}

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	name := "serve"
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		name, args = args[0], args[1:]
	} else if len(args) > 0 && (args[0] == "-h" || args[0] == "-help" || args[0] == "--help") {
		name = "help"
	}
	if name == "help" {
		usage(os.Stdout)
		return 0
	}
	for _, c := range commands() {
		if c.name == name {
			return c.run(args)
		}
	}
	fmt.Fprintf(os.Stderr, "sallyport: unknown command %q\n\n", name)
	usage(os.Stderr)
	return 2
}
