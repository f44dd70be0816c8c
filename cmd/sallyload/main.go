// Command sallyload fills an rtcd-compatible SFU with calls and says what came
// of it. It plays the Calls plugin and the participants, and speaks the wire
// protocol only, so that the same load runs against any server of that
// protocol.
//
//	sallyload -calls 20 -users 8 -unmuted 2 -pid "$(pidof sallyport)"
//	sallyload -path turn-tls -turn 'turns:chat.example.com:443?transport=tcp' -turn-secret-file secret
//	sallyload -runs 5 -calls 20 -users 8 -compare 'one/sallyport serve -config c.yaml' 'other/sallyport serve -config c.yaml'
//
// It joins everyone, waits until every expected track has arrived, lets the
// server settle for -warm, measures for -duration and prints one JSON object:
// joins, tracks, packets and loss, one-way latency and jitter, frozen video, the
// paths in use, and the processor time and memory of the processes given by -pid
// or started for the run. The latency is true as long as all participants run in
// this one process, which they do.
//
// -suite relay measures what a TURN server spends on a packet instead: bursts of
// packets go in turn through two targets, which have one, and through a third one,
// whose clients do without.
//
// Several runs, of one load or of a suite, against one server or two in turn,
// end in a table of medians and ratios; -json keeps every run.
//
// Only a sample of the participants decrypts and checks what it gets and measures
// latency and pictures; the others count packets by their numbers, or sallyload
// would need more of the machine than the server does. Over TCP and TLS all of
// them decrypt.
//
// A terminal on standard error gets a progress line. An interrupt ends the run
// early and still prints what was measured. The exit status is 1 if a
// participant could not join or nothing could be measured, 2 for wrong usage.
//
// For a TURN/TLS server with a private certificate set SSL_CERT_FILE to it.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is the whole command and returns its exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(stderr, "sallyload:", err)
		return 2
	}
	stop, err := profileSelf(o.self)
	if err != nil {
		fmt.Fprintln(stderr, "sallyload:", err)
		return 1
	}
	defer stop()
	failed, err := execute(ctx, o, stdout, stderr)
	if err != nil {
		fmt.Fprintln(stderr, "sallyload:", err)
		return 1
	}
	if failed > 0 {
		return 1
	}
	return 0
}

// execute does what the options say, prints the outcome and returns how many
// joins failed.
func execute(ctx context.Context, o options, stdout, stderr io.Writer) (failed int, err error) {
	if o.relay != nil {
		r, err := measureRelays(ctx, o, stderr)
		if o.output != "" {
			err = errors.Join(err, o.print(r, nil))
		}
		return 0, errors.Join(err, r.write(stdout))
	}
	if !o.compare && o.loads == nil && o.runs == 1 {
		r, err := runOne(ctx, o, o.targets[0], stderr)
		if err != nil {
			return 0, err
		}
		return r.Joins.Failed, o.print(r, stdout)
	}
	c, err := compareAll(ctx, o, stderr)
	for _, load := range c.Loads {
		for _, runs := range load.Runs {
			for _, r := range runs {
				failed += r.Joins.Failed
			}
		}
	}
	if o.output != "" {
		err = errors.Join(err, o.print(c, nil))
	}
	return failed, errors.Join(err, c.write(stdout))
}

// print writes JSON to the file of the options, or else to stdout.
func (o *options) print(v any, stdout io.Writer) error {
	var b bytes.Buffer
	out := json.NewEncoder(&b)
	out.SetIndent("", "  ")
	out.SetEscapeHTML(false) // "->" in the names of paths
	err := out.Encode(v)
	if err == nil && o.output != "" {
		err = os.WriteFile(o.output, b.Bytes(), 0o644)
	} else if err == nil {
		_, err = stdout.Write(b.Bytes())
	}
	if err != nil {
		return fmt.Errorf("print report: %w", err)
	}
	return nil
}
