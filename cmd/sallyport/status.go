package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"text/tabwriter"
	"time"
)

// maxStatus bounds the answer that status takes, in bytes.
const maxStatus = 8 << 20

// status asks the running gateway what it is doing.
func status(args []string) int {
	flags := flag.NewFlagSet("status", flag.ContinueOnError)
	name := configFlag(flags)
	admin := flags.String("admin", "", "`address` of the admin listener, in place of the configuration's")
	asJSON := flags.Bool("json", false, "print the answer as it is")
	if code, ok := parseFlags(flags, args); !ok {
		return code
	}
	if *admin == "" {
		l := load(*name, os.Environ())
		if len(l.faults) > 0 {
			printComplaints(os.Stderr, "", l.faults)
			return 1
		}
		*admin = l.Admin.Listen
	}
	body, err := fetchStatus(*admin)
	if err == nil && *asJSON {
		_, err = os.Stdout.Write(append(bytes.TrimRight(body, "\n"), '\n'))
	} else if err == nil {
		err = printTable(os.Stdout, body)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "sallyport status:", err)
		return 1
	}
	return 0
}

func fetchStatus(admin string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+"/status", nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "application/json")
	// The admin listener is never behind a proxy that the environment names.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("ask the running gateway: %w", err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxStatus+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read status: %w", err)
	case response.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("%s answers %s", admin, response.Status)
	case len(body) > maxStatus:
		return nil, errors.New("status is too large")
	case !json.Valid(body):
		return nil, fmt.Errorf("%s does not answer with JSON: is it Sallyport?", admin)
	}
	return body, nil
}

// printTable prints a JSON value as lines of key and value, in its own order,
// nested keys joined by dots.
func printTable(w io.Writer, body []byte) error {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if err := printRows(t, d, ""); err != nil {
		return err
	}
	return t.Flush()
}

func printRows(w io.Writer, d *json.Decoder, path string) error {
	token, err := d.Token()
	if err != nil {
		return fmt.Errorf("read status: %w", err)
	}
	delim, nested := token.(json.Delim)
	if !nested {
		_, err := fmt.Fprintf(w, "%s\t%s\n", printable(path), printable(cell(token)))
		return err
	}
	if !d.More() {
		fmt.Fprintf(w, "%s\t-\n", printable(path))
	}
	for i := 0; d.More(); i++ {
		at := fmt.Sprintf("%s[%d]", path, i)
		if delim == '{' {
			key, err := d.Token()
			if err != nil {
				return fmt.Errorf("read status: %w", err)
			}
			at = join(path, fmt.Sprint(key))
		}
		if err := printRows(w, d, at); err != nil {
			return err
		}
	}
	_, err = d.Token() // the closing bracket
	return err
}

func cell(token json.Token) string {
	if token == nil || token == "" {
		return "-"
	}
	return fmt.Sprint(token)
}

// printable keeps a value that came over the network from steering the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}
