package gateway

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Changes are what a reload found to be different from what is in force, in the
// order of config.yaml.
type Changes struct {
	// Applied are in force now.
	Applied []Change `json:"applied"`
	// Restart have to wait for a restart.
	Restart []Change `json:"restart"`
}

// A Change is one key whose value differs. There is nothing secret in it: secrets
// are in files, of which a configuration has the names.
type Change struct {
	// Key is the dotted path.
	Key string `json:"key"`
	// Old and New are the values, as they would be written in a file.
	Old string `json:"old"`
	New string `json:"new"`
	// Content tells that it is the content of the file New that changed.
	Content bool `json:"content,omitempty"`
}

// String is for people: "proxy.hold: 15s -> 30s".
func (c Change) String() string {
	if c.Content {
		return c.Key + ": new content of " + c.New
	}
	return c.Key + ": " + c.Old + " -> " + c.New
}

// changes lists the keys whose values differ, in the order of the configuration.
func changes(old, next Config) []Change {
	return diff(reflect.ValueOf(old), reflect.ValueOf(next), "")
}

func diff(old, next reflect.Value, prefix string) []Change {
	var all []Change
	for i := range old.NumField() {
		name, option, _ := strings.Cut(old.Type().Field(i).Tag.Get("koanf"), ",")
		key := prefix + name
		a, b := old.Field(i), next.Field(i)
		switch {
		case option == "squash":
			all = append(all, diff(a, b, prefix)...)
		case a.Kind() == reflect.Struct:
			all = append(all, diff(a, b, key+".")...)
		case a.Kind() == reflect.Slice && a.Len() == 0 && b.Len() == 0: // nil and empty are the same to an administrator
		case !reflect.DeepEqual(a.Interface(), b.Interface()):
			all = append(all, Change{Key: key, Old: written(a), New: written(b)})
		}
	}
	return all
}

// changedContents lists the files that are named as before and hold something
// else.
func changedContents(old, next Secrets) []Change {
	var all []Change
	for _, f := range next.files {
		was := slices.IndexFunc(old.files, func(o readFile) bool { return o.SecretFile == f.SecretFile })
		if was >= 0 && old.files[was].sum != f.sum {
			all = append(all, Change{Key: f.Key, Old: f.Name, New: f.Name, Content: true})
		}
	}
	return all
}

// written is v as somebody would write it in a file, on one line.
func written(v reflect.Value) string {
	if d, ok := v.Interface().(time.Duration); ok {
		return ShortDuration(d)
	}
	switch v.Kind() {
	case reflect.String:
		if s := v.String(); s != "" && strconv.Quote(s) == `"`+s+`"` && !strings.ContainsAny(s, " ,") {
			return s
		}
		return strconv.Quote(v.String())
	case reflect.Slice:
		elements := make([]string, v.Len())
		for i := range elements {
			elements[i] = written(v.Index(i))
		}
		return "[" + strings.Join(elements, ", ") + "]"
	case reflect.Struct:
		fields := make([]string, v.NumField())
		for i := range fields {
			fields[i] = v.Type().Field(i).Tag.Get("koanf") + ": " + written(v.Field(i))
		}
		return "{" + strings.Join(fields, ", ") + "}"
	}
	return fmt.Sprint(v.Interface())
}

// ShortDuration writes 4380h rather than 4380h0m0s.
func ShortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
