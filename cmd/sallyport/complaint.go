package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
)

// maxComplaints bounds what is said about one configuration.
const maxComplaints = 100

const moreText = "more errors follow"

// A place is where a value was set: in a file, or by an environment variable.
// The zero place is nowhere.
type place struct {
	file      string
	line, col int    // from 1
	env       string // name of the variable
}

func (p place) String() string {
	switch {
	case p.env != "":
		return "environment " + p.env
	case p.line > 0:
		return fmt.Sprintf("%s:%d:%d", p.file, p.line, p.col)
	}
	return p.file
}

// A complaint is something wrong at a place.
type complaint struct {
	at   place
	key  string // dotted path, "" when none is concerned
	text string
}

func (c complaint) String() string { return c.format("") }

// format puts kind, such as "warning: ", in front of what is said.
func (c complaint) format(kind string) string {
	at := c.at.String()
	if at != "" {
		at += ": "
	}
	at += kind
	if c.key != "" {
		at += c.key + ": "
	}
	return at + c.text
}

// sortComplaints puts the file's complaints first, by line, and then those
// about the environment, by name.
func sortComplaints(all []complaint) {
	slices.SortStableFunc(all, func(a, b complaint) int {
		return cmp.Or(
			cmp.Compare(a.at.env, b.at.env),
			cmp.Compare(a.at.line, b.at.line),
			cmp.Compare(a.at.col, b.at.col),
		)
	})
}

// printComplaints writes one line for each, of the given kind.
func printComplaints(w io.Writer, kind string, all []complaint) {
	for _, c := range all {
		fmt.Fprintln(w, c.format(kind))
	}
}
