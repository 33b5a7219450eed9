// Package contain finds the objects that make an Envoy reject its configuration, and closes them.
package contain

import (
	"cmp"
	"reflect"
	"slices"

	istiotype "istio.io/api/type/v1beta1"

	"isthmus.dev/isthmus/internal/kind"
	"isthmus.dev/isthmus/internal/snapshot"
)

// Objects returns the objects of a configuration that can be closed, sorted by key. Those of singleton kinds cannot:
// without them, nothing is left.
func Objects(cfg *snapshot.Config) []*snapshot.Object { return Changed(nil, cfg) }

// selectorOf returns the workload selector in an object's spec, or nil for its whole namespace.
func selectorOf(o *snapshot.Object) map[string]string {
	spec := reflect.ValueOf(o.Value).Elem().FieldByName("Spec")
	if !spec.IsValid() {
		return nil
	}
	s, ok := spec.Addr().Interface().(interface {
		GetSelector() *istiotype.WorkloadSelector
	})
	if !ok {
		return nil
	}
	return s.GetSelector().GetMatchLabels()
}

// Changed returns the objects of now that can be closed and do not have the same content in before, sorted by key.
func Changed(before, now *snapshot.Config) []*snapshot.Object {
	if now == nil {
		return nil
	}
	var earlier *snapshot.Objects
	if before != nil {
		earlier = before.Objects
	}
	var out []*snapshot.Object
	for was, is := range now.Objects.Diff(earlier) {
		if is != nil && !kind.IsSingleton(is.Key.Kind) && (was == nil || was.Hash != is.Hash) {
			out = append(out, is)
		}
	}
	slices.SortFunc(out, func(a, b *snapshot.Object) int { return a.Key.Compare(b.Key) })
	return out
}

// SortByBlame sorts objects so that of two that are fatal only together, the one to blame comes last: by kind (a policy
// is to blame if the Service alone does no harm), then oldest first.
func SortByBlame(cfg *snapshot.Config, objects []*snapshot.Object) {
	slices.SortFunc(objects, func(a, b *snapshot.Object) int {
		return cmp.Or(cmp.Compare(kind.Index(a.Key.Kind), kind.Index(b.Key.Kind)), cfg.Older(a.Key, b.Key))
	})
}

// Keys returns the keys of objects.
func Keys(objects []*snapshot.Object) []snapshot.Key {
	keys := make([]snapshot.Key, len(objects))
	for i, o := range objects {
		keys[i] = o.Key
	}
	return keys
}

// Close returns the configuration with some objects closed: nobody may call what a security object selects, and other
// objects are treated as absent. reason is a clause.
func Close(cfg *snapshot.Config, closed []snapshot.Key, reason string) *snapshot.Config {
	if len(closed) == 0 {
		return cfg
	}
	var change snapshot.Change
	all := slices.Clone(cfg.Closed)
	for _, k := range slices.Compact(slices.SortedFunc(slices.Values(closed), snapshot.Key.Compare)) {
		if o := cfg.Objects.Get(k); o != nil && !kind.IsSingleton(k.Kind) {
			change.Remove(k)
			all = append(all, snapshot.Closed{Key: k, Origin: o.Origin, Reason: reason, Selector: selectorOf(o)})
		}
	}
	out := cfg.With(change)
	out.Closed = all
	return out
}
