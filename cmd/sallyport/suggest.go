package main

import (
	"fmt"
	"strings"
)

// unknownKey says that f has no key called name, and which one was perhaps meant.
func unknownKey(f *field, name string) string {
	said := "unknown key " + quote(name)
	if best := closest(name, f.fields); best != "" {
		return fmt.Sprintf("%s (did you mean %q?)", said, best)
	}
	if best := elsewhere(join(f.path, name), name); best != "" {
		outer, key := "", best
		if i := strings.LastIndexByte(best, '.'); i >= 0 {
			outer, key = best[:i], best[i+1:]
		}
		if outer == "" {
			return fmt.Sprintf("%s (did you mean %q at the top?)", said, key)
		}
		return fmt.Sprintf("%s (did you mean %q in section %s?)", said, key, outer)
	}
	var names []string
	for _, c := range f.fields {
		names = append(names, c.name)
	}
	return said + " (known here: " + strings.Join(names, ", ") + ")"
}

// closest returns the name among fields that is a slip away from name, or "".
func closest(name string, fields []*field) string {
	best, least := "", 1+max(1, min(3, len(name)/3))
	for _, f := range fields {
		if d := distance(strings.ToLower(name), f.name); d < least {
			best, least = f.name, d
		}
	}
	return best
}

// elsewhere returns the path of a key in another section: the one that is
// called name, if there is only one, or the one whose path was meant by a flat
// name such as tls_cert_file.
func elsewhere(path, name string) string {
	flat := func(s string) string { return strings.NewReplacer(".", "_", "-", "_").Replace(strings.ToLower(s)) }
	var same []string
	found := ""
	schema().each(func(f *field) {
		if flat(f.path) == flat(name) || flat(f.path) == flat(path) {
			found = f.path
		}
		if f.name == strings.ToLower(name) {
			same = append(same, f.path)
		}
	})
	if found == "" && len(same) == 1 {
		found = same[0]
	}
	return found
}

// distance is the number of single-character slips (one missing, one too many,
// one wrong, two swapped) between a and b, or a large number for long input.
func distance(a, b string) int {
	const longest = 64
	if len(a) > longest || len(b) > longest {
		return longest
	}
	d := make([][]int, len(a)+1)
	for i := range d {
		d[i] = make([]int, len(b)+1)
		d[i][0] = i
	}
	for j := range d[0] {
		d[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			wrong := 1
			if a[i-1] == b[j-1] {
				wrong = 0
			}
			d[i][j] = min(d[i-1][j]+1, d[i][j-1]+1, d[i-1][j-1]+wrong)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d[i][j] = min(d[i][j], d[i-2][j-2]+1)
			}
		}
	}
	return d[len(a)][len(b)]
}
