// Package check judges single objects: what the Go type of a kind cannot say and Isthmus does not allow. Whatever an
// object comes through, a file, a draft or an API, it is held to the same checks. It is pure.
package check

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/kind"
	"isthmus.dev/isthmus/internal/snapshot"
)

// checks has one of each kind.
var checks = map[string]func(*report, metav1.Object){
	"Mesh":                of(mesh),
	"MeshPeer":            of(meshPeer),
	"FederatedExport":     of(federatedExport),
	"FederatedImport":     of(federatedImport),
	"Namespace":           func(*report, metav1.Object) {}, // its type says all
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

// Object judges an object: a pointer to the Go type of a kind, such as *corev1.Service. Without errors among the
// findings it may be carried out. It panics for a Go type that is of no kind.
func Object(o metav1.Object) []finding.Finding {
	r := &report{object: snapshot.KeyOf(o)}
	k, _ := kind.Named(r.object.Kind)
	r.metadata(k, o)
	checks[k.Name](r, o)
	return r.findings
}

// report gathers the findings about one object.
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
