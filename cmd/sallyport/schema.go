package main

import (
	"reflect"
	"strings"
	"time"

	"sallyport/gateway"
)

// A kind is the form that the value of a key takes.
type kind int

const (
	aSection     kind = iota // keys and values
	aText                    // a string
	aFlag                    // true or false
	aNumber                  // a whole number
	aDuration                // a number with a unit
	manyTexts                // a list of strings
	manySections             // a list of sections
)

// A field is one key that a configuration may have.
type field struct {
	name   string // as in YAML; "" for the root
	path   string // dotted, from the root
	kind   kind
	fields []*field // of a section, or of each element of a list of them
	single bool     // a list of one may be written without brackets
	index  []int    // of the struct field, from the struct of the parent
}

// schema returns the root of all keys, as the types of gateway.Config have them.
func schema() *field {
	root := &field{kind: aSection}
	root.fields = fieldsOf(reflect.TypeFor[gateway.Config](), "", nil)
	root.child("upstream").single = true
	return root
}

// fieldsOf returns a field for each struct field of t, those of embedded
// structs in their place.
func fieldsOf(t reflect.Type, prefix string, index []int) []*field {
	var all []*field
	for i := range t.NumField() {
		sf := t.Field(i)
		at := append(append([]int{}, index...), i)
		name, option, _ := strings.Cut(sf.Tag.Get("koanf"), ",")
		if option == "squash" {
			all = append(all, fieldsOf(sf.Type, prefix, at)...)
			continue
		}
		f := &field{name: name, path: prefix + name, kind: kindOf(sf.Type), index: at}
		switch f.kind {
		case aSection:
			f.fields = fieldsOf(sf.Type, f.path+".", nil)
		case manySections:
			f.fields = fieldsOf(sf.Type.Elem(), f.path+"[].", nil)
		}
		all = append(all, f)
	}
	return all
}

// kindOf panics on a type that no key of YAML can be: a mistake of ours, which
// every test of this package would find.
func kindOf(t reflect.Type) kind {
	switch {
	case t == reflect.TypeFor[time.Duration]():
		return aDuration
	case t.Kind() == reflect.String:
		return aText
	case t.Kind() == reflect.Bool:
		return aFlag
	case t.Kind() == reflect.Int, t.Kind() == reflect.Int64:
		return aNumber
	case t.Kind() == reflect.Struct:
		return aSection
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.String:
		return manyTexts
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct:
		return manySections
	}
	panic("configuration has a field of type " + t.String())
}

// child returns the field called name, or nil.
func (f *field) child(name string) *field {
	for _, c := range f.fields {
		if c.name == name {
			return c
		}
	}
	return nil
}

// each calls visit for every field below f, parents first, but not for those
// of list elements.
func (f *field) each(visit func(*field)) {
	for _, c := range f.fields {
		visit(c)
		if c.kind == aSection {
			c.each(visit)
		}
	}
}

// tree returns the values of v, a struct that f describes, as koanf takes them.
func (f *field) tree(v reflect.Value) map[string]any {
	m := map[string]any{}
	for _, c := range f.fields {
		value := v.FieldByIndex(c.index)
		switch c.kind {
		case aSection:
			m[c.name] = c.tree(value)
		case manySections:
			list := []any{}
			for i := range value.Len() {
				list = append(list, c.tree(value.Index(i)))
			}
			m[c.name] = list
		case manyTexts:
			m[c.name] = append([]string{}, value.Interface().([]string)...)
		default:
			m[c.name] = value.Interface()
		}
	}
	return m
}
