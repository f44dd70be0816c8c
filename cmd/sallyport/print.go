package main

import (
	"io"
	"reflect"
	"time"

	"go.yaml.in/yaml/v3"

	"sallyport/gateway"
)

// printConfig writes c as YAML that reads back as the same Config. There is
// nothing secret in it: secrets are in the files that it names.
func printConfig(w io.Writer, c gateway.Config) error {
	root := schema()
	e := yaml.NewEncoder(w)
	e.SetIndent(2)
	if err := e.Encode(root.node(root.tree(reflect.ValueOf(c)))); err != nil {
		return err
	}
	return e.Close()
}

// node returns value, which f describes, as YAML in the order of the schema.
func (f *field) node(value any) *yaml.Node {
	n := &yaml.Node{Kind: yaml.ScalarNode}
	switch v := value.(type) {
	case map[string]any:
		n.Kind = yaml.MappingNode
		for _, c := range f.fields {
			key := &yaml.Node{}
			key.SetString(c.name)
			n.Content = append(n.Content, key, c.node(v[c.name]))
		}
	case []any:
		n.Kind = yaml.SequenceNode
		for _, element := range v {
			n.Content = append(n.Content, f.node(element))
		}
	case []string:
		if f.single && len(v) == 1 {
			n.SetString(v[0])
			break
		}
		n.Kind, n.Style = yaml.SequenceNode, yaml.FlowStyle
		for _, element := range v {
			n.Content = append(n.Content, f.node(element))
		}
	case time.Duration:
		n.SetString(gateway.ShortDuration(v))
	case string:
		n.SetString(v)
	default: // a bool or a number
		if err := n.Encode(value); err != nil {
			n.SetString(err.Error())
		}
	}
	if len(n.Content) == 0 && n.Kind == yaml.SequenceNode {
		n.Style = yaml.FlowStyle
	}
	return n
}
