package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
)

// A document is what was read from one source: a tree of the values that the
// schema knows, and where each of them stands.
type document struct {
	tree   map[string]any
	at     map[string]place // by dotted path, "upstream[1]" for elements
	faults []complaint
}

// parseYAML reads the one YAML document in source. origin is the place that
// complaints name: for a file they add line and column to it.
func parseYAML(source []byte, origin place) (*yaml.Node, []complaint) {
	decoder := yaml.NewDecoder(bytes.NewReader(source))
	var doc, second yaml.Node
	if err := decoder.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, nil // empty, or comments only
	} else if err != nil {
		return nil, []complaint{syntaxComplaint(source, err, origin)}
	}
	if err := decoder.Decode(&second); err == nil {
		at := origin.of(&second)
		return nil, []complaint{{at: at, text: "a second document: a configuration is one document, so remove the --- line"}}
	} else if !errors.Is(err, io.EOF) {
		return nil, []complaint{syntaxComplaint(source, err, origin)}
	}
	return doc.Content[0], nil
}

// of returns the place of n in the source that p stands for.
func (p place) of(n *yaml.Node) place {
	if p.env == "" {
		p.line, p.col = n.Line, n.Column
	}
	return p
}

// syntaxComplaint finds where source stops being YAML. The parser's own line
// numbers point at the start of what it was reading, or one line off, so the
// line is found as the first that a correct beginning cannot take.
func syntaxComplaint(source []byte, err error, origin place) complaint {
	reason := strings.TrimPrefix(err.Error(), "yaml: ")
	line := 1
	if n, _ := fmt.Sscanf(reason, "line %d:", &line); n == 1 {
		_, reason, _ = strings.Cut(reason, ": ")
	}
	if origin.env != "" {
		return complaint{at: origin, text: "not valid YAML: " + reason}
	}
	lines := bytes.SplitAfter(source, []byte("\n"))
	if good, ok := goodLines(lines); ok {
		line = good + 1
	}
	origin.line, origin.col = min(max(line, 1), len(lines)), 1
	bad := lines[origin.line-1]
	indent := bad[:len(bad)-len(bytes.TrimLeft(bad, " \t"))]
	if tab := bytes.IndexByte(indent, '\t'); tab >= 0 {
		origin.col = tab + 1
		reason = "indented with a tab: use spaces"
	} else {
		origin.col = len(indent) + 1
	}
	return complaint{at: origin, text: "not valid YAML: " + reason}
}

// goodLines returns how many lines from the start are YAML by themselves. It
// gives up when finding out would mean parsing too much.
func goodLines(lines [][]byte) (good int, ok bool) {
	budget := 4 << 20
	total := 0
	for n, line := range lines {
		total += len(line)
		if budget -= total; budget < 0 {
			return 0, false
		}
		var node yaml.Node
		if yaml.Unmarshal(bytes.Join(lines[:n+1], nil), &node) == nil {
			good = n + 1
		}
	}
	return good, good < len(lines)
}

// readDocument reads a whole configuration from source.
func readDocument(source []byte, name string) document {
	r := newReader(place{file: name})
	node, faults := parseYAML(source, r.origin)
	r.doc.faults = faults
	switch {
	case node == nil:
	case node.Kind != yaml.MappingNode && isNull(node):
	case node.Kind != yaml.MappingNode:
		r.complain(node, "", "expected keys and values, like domain: chat.example.com, not "+describe(node))
	default:
		r.doc.tree = r.section(node, schema(), "")
	}
	return r.doc
}

// A reader turns YAML nodes into the tree of a document.
type reader struct {
	origin place
	doc    document
}

func newReader(origin place) *reader {
	return &reader{origin: origin, doc: document{tree: map[string]any{}, at: map[string]place{}}}
}

// complain notes a fault at n; after too many it only says that there are more.
func (r *reader) complain(n *yaml.Node, key, text string) {
	switch count := len(r.doc.faults); {
	case count < maxComplaints:
		r.doc.faults = append(r.doc.faults, complaint{at: r.origin.of(n), key: key, text: text})
	case count == maxComplaints:
		r.doc.faults = append(r.doc.faults, complaint{at: r.origin.of(n), text: moreText})
	}
}

func (r *reader) full() bool { return len(r.doc.faults) > maxComplaints }

// section reads a mapping by the fields of f. path is that of the mapping, with
// the index where it is an element of a list.
func (r *reader) section(n *yaml.Node, f *field, path string) map[string]any {
	tree := map[string]any{}
	line := map[string]int{}
	for i := 0; i+1 < len(n.Content) && !r.full(); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		name := key.Value
		if text := keyFault(key); text != "" {
			r.complain(key, path, text)
			continue
		}
		if first, twice := line[name]; twice {
			text := fmt.Sprintf("duplicate key %s", quote(name))
			if r.origin.env == "" {
				text += fmt.Sprintf(" (first on line %d)", first)
			}
			r.complain(key, path, text)
			continue
		}
		line[name] = key.Line
		child := f.child(name)
		if child == nil {
			r.complain(key, path, unknownKey(f, name))
			continue
		}
		at := join(path, name)
		r.doc.at[at] = r.origin.of(key)
		if v, ok := r.value(value, child, at); ok {
			tree[name] = v
		}
	}
	return tree
}

// keyFault says why key cannot be one, or returns "".
func keyFault(key *yaml.Node) string {
	switch {
	case key.Tag == "!!merge" || key.Kind == yaml.AliasNode || key.Anchor != "":
		return aliasText
	case key.Kind != yaml.ScalarNode || key.ShortTag() != "!!str":
		return "a key is a plain word, not " + describe(key)
	}
	return ""
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}
