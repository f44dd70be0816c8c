package main

import (
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// envPrefix starts the name of every environment variable that sets a key. The
// rest is the path of the key in upper case, with __ between levels.
const envPrefix = "SALLYPORT_"

// serviceLink matches what Kubernetes puts into the environment of every
// container of a namespace that has a service called sallyport or sallyport-….
// Those variables are not meant for us.
var serviceLink = regexp.MustCompile(`^SALLYPORT_([A-Z0-9_]*_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?)=|^SALLYPORT_([A-Z0-9_]*_)?PORT(_[0-9]+_(TCP|UDP|SCTP))?=(tcp|udp|sctp)://|^SALLYPORT_([A-Z0-9_]*_)?PORT_[0-9]+_(TCP|UDP|SCTP)_(PROTO|PORT|ADDR)=`)

// A setting is one key set by one environment variable.
type setting struct {
	variable, path string
	value          any
}

// readEnviron reads the variables of environ ("NAME=value") that set a key, in
// the order of their names, so that nothing depends on the order of environ.
func readEnviron(environ []string) ([]setting, []complaint) {
	var settings []setting
	var faults []complaint
	by := variablesByPath()
	set := map[string]string{} // path → variable
	for _, entry := range slices.Sorted(slices.Values(environ)) {
		name, value, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, envPrefix) || serviceLink.MatchString(entry) {
			continue
		}
		if len(faults) >= maxComplaints {
			break
		}
		f := by[name]
		if f == nil {
			faults = append(faults, complaint{at: place{env: name}, text: unknownVariable(name, by)})
			continue
		}
		set[f.path] = name
		v, wrong := readVariable(name, value, f)
		faults = append(faults, wrong...)
		if len(wrong) == 0 {
			settings = append(settings, setting{variable: name, path: f.path, value: v})
		}
	}
	return settings, append(faults, conflicts(set)...)
}

// variablesByPath returns every key by the name of its variable.
func variablesByPath() map[string]*field {
	by := map[string]*field{}
	schema().each(func(f *field) { by[variable(f.path)] = f })
	return by
}

func variable(path string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(path, ".", "__"))
}

// readVariable reads the value of one variable: text as it stands, everything
// else as YAML. Text may be in quotes, as env files of containers keep them.
func readVariable(name, value string, f *field) (any, []complaint) {
	at := place{env: name}
	quoted := strings.HasPrefix(value, `"`) || strings.HasPrefix(value, `'`)
	bracket := strings.HasPrefix(strings.TrimSpace(value), "[")
	switch {
	case f.kind == aText && !quoted:
		return value, nil
	case f.single && !quoted && !bracket:
		return []string{value}, nil
	}
	node, faults := parseYAML([]byte(value), at)
	if len(faults) > 0 {
		return nil, faults
	}
	if node == nil {
		node = &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null"}
	}
	r := newReader(at)
	v, _ := r.value(node, f, f.path)
	for i := range r.doc.faults { // the variable's name already says which key
		if r.doc.faults[i].key == f.path {
			r.doc.faults[i].key = ""
		}
	}
	return v, r.doc.faults
}

// unknownVariable says that name sets nothing, and what was perhaps meant.
func unknownVariable(name string, by map[string]*field) string {
	for known, f := range by {
		if f.kind == manySections || f.kind == manyTexts {
			if strings.HasPrefix(name, known+"__") {
				return "a list is set whole: " + known + "='[…]'"
			}
		}
	}
	best, least := "", 1+max(1, min(4, len(name)/5))
	for _, known := range sortedKeys(by) {
		d := distance(strings.ToUpper(name), known)
		// One underscore in place of two is the commonest slip.
		if strings.ReplaceAll(known, "__", "_") == strings.ReplaceAll(strings.ToUpper(name), "__", "_") {
			d = 0
		}
		if d < least {
			best, least = known, d
		}
	}
	if best == "" {
		return "no such key: a variable is SALLYPORT_ and the path of a key in upper case, with __ between levels"
	}
	return "no such key (did you mean " + best + "?)"
}

// conflicts complains about variables that set a section and a key inside it:
// which of them won would be chance.
func conflicts(set map[string]string) []complaint {
	var faults []complaint
	for _, outer := range sortedKeys(set) {
		for _, inner := range sortedKeys(set) {
			if strings.HasPrefix(inner, outer+".") {
				faults = append(faults, complaint{at: place{env: set[outer]}, text: "conflicts with " + set[inner] + ": set one of the two"})
			}
		}
	}
	return faults
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
