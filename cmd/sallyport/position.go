package main

import (
	"strings"

	"sallyport/gateway"
)

// override notes that a variable replaced what the file says about a key and
// everything below it.
func (l *loaded) override(s setting) {
	for path := range l.at {
		if below(path, s.path) {
			delete(l.at, path)
		}
	}
	l.at[s.path] = place{env: s.variable}
}

// below reports whether path is key, or inside it.
func below(path, key string) bool {
	rest, ok := strings.CutPrefix(path, key)
	return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
}

// where returns the place of key or, when it was not set, of the section it
// belongs in; the start of the file for lack of that.
func (l *loaded) where(key string) place {
	for key != "" {
		if at, ok := l.at[key]; ok {
			return at
		}
		key = key[:max(strings.LastIndexAny(key, ".["), 0)]
	}
	if l.file == "" {
		return place{}
	}
	return place{file: l.file, line: 1, col: 1}
}

func (l *loaded) complaint(p gateway.Problem) complaint {
	return complaint{at: l.where(p.Key), key: p.Key, text: p.Text}
}

// follows reports whether a problem with key may only be the consequence of a
// fault already found: its value could not be read, or it is missing where
// something else could not be.
func (l *loaded) follows(key string) bool {
	for _, f := range l.faults {
		if f.key != "" && (below(key, f.key) || below(f.key, key)) {
			return true
		}
	}
	_, set := l.at[key]
	return !set
}
