// Package contain finds the objects that an Envoy cannot live with, and makes of a configuration one in which they are
// closed.
package contain

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"

	security "istio.io/client-go/pkg/apis/security/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"isthmus.dev/isthmus/internal/snapshot"
)

// Object is one object of a configuration that can be closed. The Mesh cannot: nothing is left without it.
type Object struct {
	Key   snapshot.Key
	value metav1.Object
}

// Objects of a configuration, sorted by key.
func Objects(cfg *snapshot.Config) []Object {
	if cfg == nil {
		return nil
	}
	out := slices.Concat(
		objects("MeshPeer", cfg.MeshPeers), objects("FederatedExport", cfg.FederatedExports),
		objects("FederatedImport", cfg.FederatedImports),
		objects("Namespace", cfg.Namespaces), objects("Service", cfg.Services),
		objects("PeerAuthentication", cfg.PeerAuthentications),
		objects("AuthorizationPolicy", cfg.AuthorizationPolicies), objects("ServiceEntry", cfg.ServiceEntries),
		objects("WorkloadEntry", cfg.WorkloadEntries),
	)
	slices.SortFunc(out, func(a, b Object) int { return a.Key.Compare(b.Key) })
	return out
}

func objects[T metav1.Object](kind string, list []T) []Object {
	out := make([]Object, len(list))
	for i, o := range list {
		out[i] = Object{Key: snapshot.Key{Kind: kind, Namespace: o.GetNamespace(), Name: o.GetName()}, value: o}
	}
	return out
}

// Content is a hash of what an object says. Where it is written does not count.
func (o Object) Content() string {
	text, err := json.Marshal(o.value)
	if err != nil {
		return "" // what cannot be written cannot have been read
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// selector is what an object of a security kind selects; nil for its whole namespace.
func (o Object) selector() map[string]string {
	switch v := o.value.(type) {
	case *security.AuthorizationPolicy:
		return v.Spec.GetSelector().GetMatchLabels()
	case *security.PeerAuthentication:
		return v.Spec.GetSelector().GetMatchLabels()
	}
	return nil
}

// Changed are the objects of now that did not stand like this in before.
func Changed(before, now *snapshot.Config) []Object {
	was := map[snapshot.Key]Object{}
	for _, o := range Objects(before) {
		was[o.Key] = o
	}
	return slices.DeleteFunc(Objects(now), func(o Object) bool {
		old, ok := was[o.Key]
		return ok && (old.value == o.value || old.Content() == o.Content())
	})
}

// kinds in the order in which one makes the next one mean something: a policy without a Service selects nothing, so it
// is the policy that is to blame.
var kinds = []string{
	"Namespace", "MeshPeer", "Service", "ServiceEntry", "WorkloadEntry", "FederatedExport", "FederatedImport",
	"PeerAuthentication", "AuthorizationPolicy",
}

// Blame sorts objects so that of two that are fatal together the one to be named comes last: by kind, then the oldest
// first.
func Blame(cfg *snapshot.Config, objects []Object) {
	slices.SortFunc(objects, func(a, b Object) int {
		return cmp.Or(cmp.Compare(slices.Index(kinds, a.Key.Kind), slices.Index(kinds, b.Key.Kind)), cfg.Older(a.Key, b.Key))
	})
}

// Keys of objects.
func Keys(objects []Object) []snapshot.Key {
	keys := make([]snapshot.Key, len(objects))
	for i, o := range objects {
		keys[i] = o.Key
	}
	return keys
}

// Close is the configuration with some objects closed: what those of a security kind select is closed, and the others
// are as if they were absent. The reason is a clause.
func Close(cfg *snapshot.Config, closed []snapshot.Key, reason string) *snapshot.Config {
	if len(closed) == 0 {
		return cfg
	}
	set := make(map[snapshot.Key]bool, len(closed))
	for _, k := range closed {
		set[k] = true
	}
	out := *cfg
	out.Closed = slices.Clone(cfg.Closed)
	for _, o := range Objects(cfg) {
		if set[o.Key] {
			out.Closed = append(out.Closed,
				snapshot.Closed{Key: o.Key, Origin: cfg.Origins.Lookup(o.Key), Reason: reason, Selector: o.selector()})
		}
	}
	out.MeshPeers = without("MeshPeer", cfg.MeshPeers, set)
	out.FederatedExports = without("FederatedExport", cfg.FederatedExports, set)
	out.FederatedImports = without("FederatedImport", cfg.FederatedImports, set)
	out.Namespaces = without("Namespace", cfg.Namespaces, set)
	out.Services = without("Service", cfg.Services, set)
	out.PeerAuthentications = without("PeerAuthentication", cfg.PeerAuthentications, set)
	out.AuthorizationPolicies = without("AuthorizationPolicy", cfg.AuthorizationPolicies, set)
	out.ServiceEntries = without("ServiceEntry", cfg.ServiceEntries, set)
	out.WorkloadEntries = without("WorkloadEntry", cfg.WorkloadEntries, set)
	return &out
}

// without is a list without what is closed; the list itself when there is nothing of that in it.
func without[T metav1.Object](kind string, list []T, closed map[snapshot.Key]bool) []T {
	is := func(o T) bool {
		return closed[snapshot.Key{Kind: kind, Namespace: o.GetNamespace(), Name: o.GetName()}]
	}
	if !slices.ContainsFunc(list, is) {
		return list
	}
	return slices.DeleteFunc(slices.Clone(list), is)
}
