// Command flame draws a CPU profile of a server under load and says where the
// microseconds of a packet go. It makes the picture and the tables of
// docs/performance.md and is in no release.
//
//	flame [-title TEXT] [-svg FILE] [-report FILE -load NAME | -requests N] PROFILE
//
// The report is the JSON of the sallyload that took the profile: of the load
// NAME, or the only one.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "flame:", err)
		os.Exit(1)
	}
}

func run(args []string, stdout io.Writer) error {
	f := flag.NewFlagSet("flame", flag.ContinueOnError)
	title := f.String("title", "CPU time", "title of the picture")
	svg := f.String("svg", "", "file for the picture")
	report := f.String("report", "", "JSON of sallyload, for the number of packets")
	load := f.String("load", "", "load of the report")
	requests := f.Float64("requests", 0, "number of HTTP requests, instead of a report")
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() != 1 {
		return fmt.Errorf("want one profile, got %d", f.NArg())
	}
	b, err := os.ReadFile(f.Arg(0))
	if err != nil {
		return err
	}
	samples, err := parse(b)
	if err != nil {
		return fmt.Errorf("%s: %w", f.Arg(0), err)
	}
	unit, count := "packet out", 0.0
	switch {
	case *requests > 0:
		unit, count = "request", *requests
	case *report != "":
		if count, err = packetsOf(*report, *load); err != nil {
			return err
		}
	}
	if *svg != "" {
		out, err := os.Create(*svg)
		if err != nil {
			return err
		}
		if err := draw(out, *title, samples); err != nil {
			return err
		}
		if err := out.Close(); err != nil {
			return err
		}
	}
	return table(stdout, samples, unit, count)
}

// packetsOf returns how many packets the load's last run delivered.
func packetsOf(file, load string) (float64, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	type run struct {
		Packets struct{ Received float64 } `json:"packets"`
	}
	var r struct {
		run
		Loads []struct {
			Load string  `json:"load"`
			Runs [][]run `json:"runs"`
		} `json:"loads"`
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return 0, fmt.Errorf("%s: %w", file, err)
	}
	for _, l := range r.Loads {
		if (l.Load == load || load == "" && len(r.Loads) == 1) && len(l.Runs) > 0 && len(l.Runs[0]) > 0 {
			return l.Runs[0][len(l.Runs[0])-1].Packets.Received, nil
		}
	}
	if r.Loads == nil {
		return r.run.Packets.Received, nil
	}
	return 0, fmt.Errorf("%s: no load %q", file, load)
}
