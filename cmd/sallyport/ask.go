package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"

	"sallyport/gateway"
	"sallyport/gateway/admin"
)

// A telephone is the way to the running gateway: its socket for commands.
type telephone struct {
	config, socket *string
}

func telephoneFlags(flags *flag.FlagSet) telephone {
	return telephone{
		config: configFlag(flags),
		socket: flags.String("socket", "", "`path` of the running gateway's admin.socket, in place of the configuration's"),
	}
}

var errNoSocket = errors.New("admin.socket is off in the configuration")

// path is where the gateway listens. A configuration that is missing or faulty is
// no reason not to talk to a gateway that runs: it has an older one.
func (t telephone) path() (string, error) {
	if *t.socket != "" {
		return *t.socket, nil
	}
	l := load(*t.config, os.Environ())
	if len(l.faults) > 0 {
		return cmp.Or(l.Admin.Socket, gateway.Default().Admin.Socket), nil
	}
	if l.Admin.Socket == "" {
		return "", errNoSocket
	}
	return l.Admin.Socket, nil
}

// ask sends a command and reads what comes back into answer. An error may have
// several lines.
func (t telephone) ask(method, path string, command, answer any) error {
	socket, err := t.path()
	if err != nil {
		return err
	}
	body, err := json.Marshal(command)
	if err != nil {
		return err
	}
	request, err := http.NewRequest(method, "http://sallyport"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	response, err := client.Do(request)
	if err != nil {
		err = fmt.Errorf("ask the running gateway: %w", errors.Unwrap(err))
		if errors.Is(err, fs.ErrNotExist) && *t.socket == "" {
			err = fmt.Errorf("%w\nit does not run, or has its socket elsewhere: name it with -socket, and a new admin.socket takes a restart", err)
		}
		return err
	}
	defer response.Body.Close()
	body, err = io.ReadAll(io.LimitReader(response.Body, maxStatus))
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return refusal(response.Status, body)
	}
	if err := json.Unmarshal(body, answer); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	return nil
}

// refusal makes one error of the lines of a fault.
func refusal(status string, body []byte) error {
	var fault admin.Fault
	if json.Unmarshal(body, &fault) != nil || len(fault.Errors) == 0 {
		return fmt.Errorf("%s", status)
	}
	var errs []error
	for _, line := range fault.Errors {
		errs = append(errs, errors.New(printable(line)))
	}
	return errors.Join(errs...)
}

// reloadRunning has the running gateway read its configuration again.
func reloadRunning(args []string) int {
	flags := flag.NewFlagSet("reload", flag.ContinueOnError)
	phone := telephoneFlags(flags)
	if code, ok := parseFlags(flags, args); !ok {
		return code
	}
	var done gateway.Changes
	if err := phone.ask(http.MethodPost, "/reload", nil, &done); err != nil {
		fmt.Fprintf(os.Stderr, "sallyport reload: nothing was changed:\n%v\n", err)
		return 1
	}
	if len(done.Applied)+len(done.Restart) == 0 {
		fmt.Println("nothing to change")
	}
	for _, c := range done.Applied {
		fmt.Println("applied: ", printable(c.String()))
	}
	for _, c := range done.Restart {
		fmt.Println("needs a restart: ", printable(c.String()))
	}
	return 0
}
