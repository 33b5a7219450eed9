package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// load reads one YAML document into the struct at out and refuses what the struct does not know.
func load(path string, out any) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read settings: %w", err)
	}
	return decode(path, raw, out)
}

func decode(path string, raw []byte, out any) error {
	dec := yaml.NewDecoder(bytes.NewReader(raw))
	var doc, more yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil // an empty file says nothing
	case err != nil:
		return fmt.Errorf("%s: %s", path, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: holds more than one document: keep one", path)
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		if root.Tag == "!!null" {
			return nil
		}
		return fmt.Errorf("%s:%d: settings are written as key: value", path, root.Line)
	}
	if errs := unknownKeys(path, root, reflect.TypeOf(out).Elem(), ""); len(errs) > 0 {
		return errors.Join(errs...)
	}
	var wrong *yaml.TypeError
	switch err := root.Decode(out); {
	case errors.As(err, &wrong):
		errs := make([]error, 0, len(wrong.Errors))
		for _, e := range wrong.Errors { // "line 3: cannot unmarshal …"
			errs = append(errs, fmt.Errorf("%s:%s", path, strings.TrimPrefix(e, "line ")))
		}
		return errors.Join(errs...)
	case err != nil:
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// unknownKeys walks a mapping beside the struct that will hold it.
func unknownKeys(path string, node *yaml.Node, t reflect.Type, at string) []error {
	fields := map[string]reflect.Type{}
	var known []string
	for f := range t.Fields() {
		key, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		fields[key] = f.Type
		known = append(known, key)
	}
	slices.Sort(known)
	var errs []error
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		ft, ok := fields[key.Value]
		switch {
		case !ok:
			errs = append(errs, fmt.Errorf("%s:%d: unknown key %q: the keys here are %s", path, key.Line, at+key.Value,
				strings.Join(known, ", ")))
		case ft.Kind() == reflect.Struct && value.Kind == yaml.MappingNode:
			errs = append(errs, unknownKeys(path, value, ft, at+key.Value+".")...)
		}
	}
	return errs
}
