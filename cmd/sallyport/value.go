package main

import (
	"fmt"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// maxElements bounds the length of a list.
const maxElements = 1000

const aliasText = "anchors, aliases and merge keys are not supported: write the value out"

// value reads n as f wants it. ok is false when n is not a value of f, which
// has then been complained about, or says nothing, as an empty section does.
func (r *reader) value(n *yaml.Node, f *field, path string) (v any, ok bool) {
	if n.Kind != yaml.MappingNode || r.origin.env != "" {
		r.doc.at[path] = r.origin.of(n)
	}
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		r.complain(n, path, aliasText)
		return nil, false
	case n.Style&yaml.TaggedStyle != 0:
		r.complain(n, path, "tags like "+quote(n.Tag)+" are not supported")
		return nil, false
	case isNull(n) && f.kind == aSection && r.origin.env == "":
		return nil, false
	}
	switch f.kind {
	case aSection:
		if n.Kind == yaml.MappingNode {
			return r.section(n, f, path), true
		}
		r.complain(n, path, "expected keys and values, not "+describe(n))
		return nil, false
	case manyTexts:
		return r.texts(n, f, path)
	case manySections:
		return r.sections(n, f, path)
	}
	v, fault := scalar(n, f.kind)
	if fault != "" {
		r.complain(n, path, fault)
	}
	return v, fault == ""
}

func (r *reader) texts(n *yaml.Node, f *field, path string) (any, bool) {
	if f.single && n.Kind == yaml.ScalarNode && !isNull(n) {
		v, fault := scalar(n, aText)
		if fault != "" {
			r.complain(n, path, fault)
			return nil, false
		}
		return []string{v.(string)}, true
	}
	if n.Kind != yaml.SequenceNode {
		r.complain(n, path, expected("a list, like [a, b]", n))
		return nil, false
	}
	if !r.fits(n, path) {
		return nil, false
	}
	list, good := []string{}, true
	for i, element := range n.Content {
		v, ok := r.value(element, &field{kind: aText}, fmt.Sprintf("%s[%d]", path, i))
		if good = good && ok; good {
			list = append(list, v.(string))
		}
	}
	return list, good
}

func (r *reader) sections(n *yaml.Node, f *field, path string) (any, bool) {
	if n.Kind != yaml.SequenceNode {
		r.complain(n, path, expected("a list", n))
		return nil, false
	}
	if !r.fits(n, path) {
		return nil, false
	}
	list, good := []any{}, true
	element := &field{kind: aSection, path: f.path + "[]", fields: f.fields}
	for i, e := range n.Content {
		at := fmt.Sprintf("%s[%d]", path, i)
		if isNull(e) {
			r.complain(e, at, "expected keys and values, not nothing")
			good = false
			continue
		}
		r.doc.at[at] = r.origin.of(e)
		v, ok := r.value(e, element, at)
		if good = good && ok; good {
			element.complete(v.(map[string]any))
			list = append(list, v)
		}
	}
	return list, good
}

// complete adds the lists that the section v leaves out: empty, as they are
// printed.
func (f *field) complete(v map[string]any) {
	for _, c := range f.fields {
		if _, ok := v[c.name]; !ok && c.kind == manyTexts {
			v[c.name] = []string{}
		}
	}
}

func (r *reader) fits(list *yaml.Node, path string) bool {
	if len(list.Content) <= maxElements {
		return true
	}
	r.complain(list, path, fmt.Sprintf("has %d elements: at most %d are possible", len(list.Content), maxElements))
	return false
}

// scalar reads n as text, flag, number or duration, or says what is wrong.
func scalar(n *yaml.Node, k kind) (v any, fault string) {
	tag := n.ShortTag()
	numeric := tag == "!!int" || tag == "!!float"
	switch k {
	case aText:
		if n.Kind == yaml.ScalarNode && tag == "!!str" {
			return n.Value, ""
		}
		fault = expected("text", n)
		if n.Kind == yaml.ScalarNode && !isNull(n) {
			fault += ": put it in quotes"
		} else if isNull(n) {
			fault += `: write "" for none`
		}
	case aFlag:
		if tag == "!!bool" {
			return strings.EqualFold(n.Value, "true"), ""
		}
		fault = expected("true or false", n)
	case aNumber:
		var i int64
		if tag == "!!int" && n.Decode(&i) == nil {
			return i, ""
		}
		fault = expected("a whole number", n)
		if tag == "!!int" {
			fault = shorten(n.Value) + " is too large"
		}
	case aDuration:
		d, err := time.ParseDuration(n.Value)
		switch {
		case n.Kind == yaml.ScalarNode && tag == "!!str" && err == nil && n.Value != "0":
			return d, ""
		case numeric, strings.Trim(n.Value, "0123456789") == "" && n.Value != "":
			fault = shorten(n.Value) + " has no unit: use 15s, 2m or 4h"
		default:
			fault = expected("a duration", n) + ": use 15s, 2m or 4h"
		}
	}
	return nil, fault
}

func expected(what string, n *yaml.Node) string {
	return "expected " + what + ", not " + describe(n)
}

// describe names a value in words. It shows no more than a little of it.
func describe(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "keys and values"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Kind == yaml.AliasNode:
		return "an alias"
	case isNull(n):
		return "nothing"
	}
	switch n.ShortTag() {
	case "!!int", "!!float":
		return "the number " + shorten(n.Value)
	case "!!str":
		return "the text " + quote(n.Value)
	}
	return shorten(n.Value)
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// quote quotes s for a message, which shows no control characters of a file.
func quote(s string) string { return fmt.Sprintf("%q", shorten(s)) }

func shorten(s string) string {
	const most = 40
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
