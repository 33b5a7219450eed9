package xds

import (
	"slices"
	"strings"

	"isthmus.dev/isthmus/internal/envoy"
)

// delta is what a client lacks, sorted by name.
type delta struct {
	changed []*envoy.Resource
	removed []string
}

func (d delta) empty() bool { return len(d.changed) == 0 && len(d.removed) == 0 }

// difference compares what a client has with what is available to it.
func difference(ts *typeState, available map[string]*envoy.Resource) delta {
	var d delta
	add := func(name string, r *envoy.Resource) {
		if ts.sent[name] != r.Version {
			d.changed = append(d.changed, r)
		}
	}
	if ts.wildcard {
		for name, r := range available {
			add(name, r)
		}
	}
	for name := range ts.subscribed {
		if r := available[name]; r != nil {
			delete(ts.missing, name)
			if !ts.wildcard {
				add(name, r)
			}
		} else if _, had := ts.sent[name]; !had && !ts.missing[name] {
			d.removed = append(d.removed, name) // report once that a requested resource does not exist
		}
	}
	for name := range ts.sent {
		if available[name] == nil {
			d.removed = append(d.removed, name)
		}
	}
	slices.SortFunc(d.changed, func(a, b *envoy.Resource) int { return strings.Compare(a.Name, b.Name) })
	slices.Sort(d.removed)
	return d
}

func sorted(byName map[string]*envoy.Resource) []*envoy.Resource {
	out := make([]*envoy.Resource, 0, len(byName))
	for _, r := range byName {
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b *envoy.Resource) int { return strings.Compare(a.Name, b.Name) })
	return out
}
