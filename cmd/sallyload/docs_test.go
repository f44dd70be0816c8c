package main

import (
	"flag"
	"io"
	"os"
	"reflect"
	"strings"
	"testing"
)

// keysOf lists the keys of a type's JSON, at any depth.
func keysOf(t reflect.Type) (keys []string) {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice:
		return keysOf(t.Elem())
	case reflect.Struct:
		for i := range t.NumField() {
			name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
			keys = append(append(keys, name), keysOf(t.Field(i).Type)...)
		}
	}
	return keys
}

// The page of the documentation knows every key of a report, and no flag that there
// is none of.
func TestDocumentation(t *testing.T) {
	b, err := os.ReadFile("../../docs/sallyload.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	for _, key := range append(keysOf(reflect.TypeFor[Report]()), keysOf(reflect.TypeFor[Relays]())...) {
		if !strings.Contains(page, "`"+key+"`") {
			t.Errorf("key %s is not documented", key)
		}
	}
	f := flag.NewFlagSet("", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	(&options{}).define(f, &raw{})
	for _, part := range strings.Split(page, "`-")[1:] {
		name := part[:strings.IndexAny(part, "` =")]
		if f.Lookup(name) == nil {
			t.Errorf("there is no flag -%s", name)
		}
	}
}
