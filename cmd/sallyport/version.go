package main

import (
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"

	"sallyport/sfu/rtcd"
)

// What the linker is told (-X main.release=v1.2.3). Where it was told nothing,
// the version control information in the binary has to do.
var release, commit, date string

// build says what this binary was made of.
func build() rtcd.Version {
	v := rtcd.Version{Number: cmp.Or(release, "devel"), Hash: commit, Date: date}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Hash = cmp.Or(v.Hash, s.Value)
		case "vcs.time":
			v.Date = cmp.Or(v.Date, s.Value)
		}
	}
	return v
}

// version prints build information.
func version(args []string) int {
	flags := flag.NewFlagSet("version", flag.ContinueOnError)
	asJSON := flags.Bool("json", false, "print one JSON object")
	if code, ok := parseFlags(flags, args); !ok {
		return code
	}
	v := build()
	if *asJSON {
		return printJSON(struct {
			Version string `json:"version"`
			Hash    string `json:"hash"`
			Date    string `json:"date"`
			Go      string `json:"go"`
			OS      string `json:"os"`
			Arch    string `json:"arch"`
		}{v.Number, v.Hash, v.Date, runtime.Version(), runtime.GOOS, runtime.GOARCH})
	}
	fmt.Printf("sallyport %s (commit %s, %s, %s %s/%s)\n", v.Number, cmp.Or(v.Hash, "unknown"),
		cmp.Or(v.Date, "date unknown"), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return 0
}

// printJSON writes v to standard output, indented, and returns the exit code.
func printJSON(v any) int {
	e := json.NewEncoder(os.Stdout)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		fmt.Fprintln(os.Stderr, "sallyport:", err)
		return 1
	}
	return 0
}
