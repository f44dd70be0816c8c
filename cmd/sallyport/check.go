package main

import (
	"flag"
	"fmt"
	"io/fs"
	"os"

	"sallyport/gateway"
)

// check reads and validates the configuration, and prints what it amounts to.
func check(args []string) int {
	flags := flag.NewFlagSet("check", flag.ContinueOnError)
	name := configFlag(flags)
	if code, ok := parseFlags(flags, args); !ok {
		return code
	}
	l := load(*name, os.Environ())
	var certificate []complaint
	if len(l.faults) == 0 {
		_, faults := l.secrets(nil)
		bad, doubtful := gateway.InspectCertificate(l.Config)
		l.faults = append(append(l.faults, faults...), l.complaints(bad)...)
		certificate = l.complaints(doubtful)
	}
	printComplaints(os.Stderr, "warning: ", append(l.warnings(), certificate...))
	printComplaints(os.Stderr, "", l.faults)
	if len(l.faults) > 0 {
		return 1
	}
	if err := printConfig(os.Stdout, l.Config); err != nil {
		fmt.Fprintln(os.Stderr, "sallyport check:", err)
		return 1
	}
	return 0
}

// secrets reads the secrets of l with read, nil for the disk. A file that does not exist is left
// to warnings: a configuration is often checked before it is installed.
func (l *loaded) secrets(read func(string) ([]byte, error)) (gateway.Secrets, []complaint) {
	missing := map[string]bool{}
	for _, f := range l.SecretFiles() {
		if _, err := os.Stat(f.Name); os.IsNotExist(err) {
			missing[f.Key] = true
		}
	}
	s, problems := gateway.ReadSecrets(l.Config, read)
	var faults []complaint
	for _, p := range problems {
		if !missing[p.Key] {
			faults = append(faults, l.complaint(p))
		}
	}
	return s, faults
}

func (l *loaded) complaints(problems []gateway.Problem) (all []complaint) {
	for _, p := range problems {
		all = append(all, l.complaint(p))
	}
	return all
}

// warnings returns what does not keep the gateway from starting but should be
// looked at: what the configuration says and how the secret files are kept.
func (l *loaded) warnings() []complaint {
	if len(l.faults) > 0 {
		return nil
	}
	all := l.complaints(l.Warnings())
	for _, f := range l.SecretFiles() {
		if text := secretFileWarning(f.Name); text != "" {
			all = append(all, l.complaint(gateway.Problem{Key: f.Key, Text: text}))
		}
	}
	sortComplaints(all)
	return all
}

func secretFileWarning(name string) string {
	const others = fs.FileMode(0o007)
	info, err := os.Stat(name)
	switch {
	case os.IsNotExist(err):
		return name + " does not exist"
	case err == nil && info.Mode().IsRegular() && info.Mode()&others != 0:
		return name + " can be read by every user of this machine: chmod o-rwx it"
	}
	return ""
}
