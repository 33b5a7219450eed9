// Package check validates single objects: rules that a kind's Go type cannot express. An object is held to the same
// checks whether it comes from a file, a draft or an API. The package is pure.
package check

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/kind"
	"isthmus.dev/isthmus/internal/snapshot"
)

// checks has an entry for each kind.
var checks = map[string]func(*report, metav1.Object){
	"Mesh":                of(mesh),
	"MeshPeer":            of(meshPeer),
	"FederatedExport":     of(federatedExport),
	"FederatedImport":     of(federatedImport),
	"Namespace":           func(*report, metav1.Object) {}, // nothing to check beyond its type
	"Service":             of(service),
	"PeerAuthentication":  of(peerAuthentication),
	"AuthorizationPolicy": of(authorizationPolicy),
	"ServiceEntry":        of(serviceEntry),
	"WorkloadEntry":       of(workloadEntry),
	"Sidecar":             of(sidecar),
}

func of[T metav1.Object](check func(*report, T)) func(*report, metav1.Object) {
	return func(r *report, o metav1.Object) { check(r, o.(T)) }
}

// Object validates an object, a pointer to the Go type of a kind such as *corev1.Service. The object may take effect if
// no finding is an error. Object panics if the Go type belongs to no kind.
func Object(o metav1.Object) []finding.Finding {
	r := &report{object: snapshot.KeyOf(o)}
	k, _ := kind.Named(r.object.Kind)
	r.metadata(k, o)
	checks[k.Name](r, o)
	return r.findings
}

// report collects the findings about one object.
type report struct {
	object   kind.Key
	findings []finding.Finding
}

func (r *report) find(code finding.Code, field, message string, remedy ...string) {
	r.findings = append(r.findings, finding.New(code, r.object, field, message, remedy...))
}

func (r *report) metadata(k kind.Kind, o metav1.Object) {
	const label = "use at most 63 lower-case letters, digits and hyphens, beginning and ending with a letter or digit"
	name, ns := o.GetName(), o.GetNamespace()
	switch {
	case k.NameIsLabel && !isLabel(name):
		r.find(finding.Metadata, "metadata.name",
			fmt.Sprintf("%q cannot be the name of a %s", finding.Clip(name), k.Name),
			label)
	case len(validation.IsDNS1123Subdomain(name)) > 0:
		r.find(finding.Metadata, "metadata.name", fmt.Sprintf("%q cannot be a name", finding.Clip(name)),
			"use at most 253 lower-case letters, digits, hyphens and dots, beginning and ending with a letter or digit")
	}
	switch {
	case !k.Namespaced && ns != "":
		r.find(finding.Metadata, "metadata.namespace", k.Name+" belongs to the whole mesh and has no namespace",
			"remove metadata.namespace")
	case k.Namespaced && !isLabel(ns):
		r.find(finding.Metadata, "metadata.namespace", fmt.Sprintf("%q cannot be a namespace", finding.Clip(ns)), label)
	}
	r.matchLabels("metadata.labels", o.GetLabels())
}
