package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
)

func usage(w io.Writer) {
	fmt.Fprint(w, "usage: sallyport [command] [flags]\n\n")
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, c := range commands() {
		fmt.Fprintf(t, "  %s %s\t%s\n", c.name, c.arguments, c.summary)
	}
	t.Flush()
	fmt.Fprint(w, "\n-h after a command prints its flags.\n")
}

// parseFlags parses args. When it returns false, the program ends with code.
func parseFlags(flags *flag.FlagSet, args []string) (code int, ok bool) {
	return parseArguments(flags, args, 0)
}

// parseArguments parses args, of which n follow the flags. When it returns false,
// the program ends with code.
func parseArguments(flags *flag.FlagSet, args []string, n int) (code int, ok bool) {
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0, false
	} else if err != nil { // which the flag package has printed
		return 2, false
	}
	if flags.NArg() > n {
		fmt.Fprintf(os.Stderr, "sallyport %s: unexpected argument %q\n", flags.Name(), flags.Arg(n))
		return 2, false
	}
	if flags.NArg() < n {
		fmt.Fprintf(os.Stderr, "sallyport %s: an argument is missing\n", flags.Name())
		return 2, false
	}
	return 0, true
}

// installedConfig is where an installation has its configuration.
const installedConfig = "/etc/sallyport/config.yaml"

// configFlag adds -config to flags.
func configFlag(flags *flag.FlagSet) *string {
	name := "config.yaml"
	if !exists(name) && exists(installedConfig) {
		name = installedConfig
	}
	return flags.String("config", name, "configuration `file`; \"\" takes defaults and environment alone")
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}
