package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/go-viper/mapstructure/v2"
	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/v2"

	"sallyport/gateway"
)

// maxFile bounds the size of a configuration file, in bytes.
const maxFile = 1 << 20

// loaded is a configuration and where its values were set.
type loaded struct {
	gateway.Config
	file   string           // "" if there was none
	at     map[string]place // by dotted path
	faults []complaint      // sorted; Config is of use only if there are none
}

// load reads the configuration from the defaults, then the file, then the
// variables of environ ("NAME=value"), each overriding those before, and
// validates the result. Name "" means no file. load never fails halfway: what
// is wrong is in the faults, all of it.
func load(name string, environ []string) loaded {
	doc := document{}
	if name != "" {
		source, err := readFile(name)
		if err != nil {
			return loaded{file: name, faults: []complaint{{at: place{file: name}, text: err.Error()}}}
		}
		doc = readDocument(source, name)
	}
	return assemble(name, doc, environ)
}

// readFile returns the content of a file that is not larger than maxFile.
func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, errors.New("no such file: name one with -config FILE, or use -config \"\" to take defaults and environment alone")
	} else if err != nil {
		return nil, reason(err)
	}
	defer f.Close()
	source, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, reason(err)
	}
	if len(source) > maxFile {
		return nil, fmt.Errorf("larger than %d bytes: this is not a configuration", maxFile)
	}
	return source, nil
}

// reason takes the file's name off an error of os, for a message that starts
// with it.
func reason(err error) error {
	if pe, ok := errors.AsType[*os.PathError](err); ok {
		return pe.Err
	}
	return err
}

// assemble puts the layers on top of each other and validates the sum.
func assemble(name string, doc document, environ []string) loaded {
	settings, envFaults := readEnviron(environ)
	l := loaded{file: name, at: doc.at, faults: append(doc.faults, envFaults...)}
	if l.at == nil {
		l.at = map[string]place{}
	}
	for _, s := range settings {
		l.override(s)
	}
	config, err := merge(doc.tree, settings)
	if err != nil {
		l.faults = append(l.faults, complaint{at: place{file: name}, text: err.Error()})
		return l
	}
	l.Config = config
	said := len(l.faults) > 0
	for _, p := range config.Validate() {
		if said && l.follows(p.Key) {
			continue
		}
		l.faults = append(l.faults, l.complaint(p))
	}
	sortComplaints(l.faults)
	if len(l.faults) > maxComplaints+1 {
		l.faults = append(l.faults[:maxComplaints], complaint{at: l.faults[maxComplaints].at, text: moreText})
	}
	return l
}

// merge is the one use of koanf: layers of maps into the typed Config.
func merge(file map[string]any, settings []setting) (gateway.Config, error) {
	k := koanf.New(".")
	layers := []map[string]any{schema().tree(reflect.ValueOf(gateway.Default())), file}
	for _, s := range settings {
		layers = append(layers, s.tree())
	}
	for _, layer := range layers {
		if err := k.Load(confmap.Provider(layer, ""), nil); err != nil {
			return gateway.Config{}, fmt.Errorf("merge configuration: %w", err)
		}
	}
	var config gateway.Config
	err := k.UnmarshalWithConf("", &config, koanf.UnmarshalConf{
		DecoderConfig: &mapstructure.DecoderConfig{
			Result:      &config,
			TagName:     "koanf",
			ErrorUnused: true,
			MatchName:   func(key, name string) bool { return key == name },
		},
	})
	if err != nil {
		return gateway.Config{}, fmt.Errorf("decode configuration: %w", err)
	}
	return config, nil
}

// tree returns the setting as nested maps.
func (s setting) tree() map[string]any {
	parts := strings.Split(s.path, ".")
	v := s.value
	for _, name := range slices.Backward(parts) {
		v = map[string]any{name: v}
	}
	return v.(map[string]any)
}
