package check

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	networking "istio.io/client-go/pkg/apis/networking/v1"

	"isthmus.dev/isthmus/internal/finding"
)

// sidecar allows the hosts of one egress listener and nothing else. Isthmus uses a Sidecar only to limit which services
// are visible.
func sidecar(r *report, o *networking.Sidecar) {
	r.onlyField("spec", &o.Spec, "egress")
	if len(o.Spec.Egress) == 0 {
		r.find(finding.Required, "spec.egress", "a Sidecar without egress says nothing",
			`write egress: [{hosts: ["./*"]}] with what the namespace calls, or remove the object`)
	}
	for i, l := range o.Spec.Egress {
		path := fmt.Sprintf("spec.egress[%d]", i)
		if i > 0 {
			r.find(finding.Unsupported, path, "egress listeners that differ by their ports are not supported yet",
				"write all hosts into one item")
		}
		r.onlyField(path, l, "hosts")
		r.sidecarHosts(path+".hosts", l.GetHosts())
	}
}

// onlyField refuses every set field of a message except one.
func (r *report) onlyField(path string, m proto.Message, known string) {
	var written []string
	m.ProtoReflect().Range(func(f protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		written = append(written, f.JSONName())
		return true
	})
	slices.Sort(written)
	for _, field := range written {
		switch {
		case field == known:
		case field == "workloadSelector":
			r.find(finding.Unsupported, finding.Child(path, field),
				"a Sidecar means all workloads of its namespace; a selector is not supported yet",
				"remove it, and write the hosts that any workload of the namespace calls")
		default:
			r.find(finding.Unsupported, finding.Child(path, field),
				"a Sidecar says which hosts are seen; more is not supported yet", "remove the field")
		}
	}
}

func (r *report) sidecarHosts(path string, hosts []string) {
	if len(hosts) == 0 {
		r.find(finding.Required, path, "no host is written",
			`write hosts such as "./*" or shop/till.shop.svc.cluster.local; "~/*" for none`)
	}
	r.atMost(path, len(hosts), maxSidecarHosts)
	for i, h := range hosts {
		p := fmt.Sprintf("%s[%d]", path, i)
		ns, name, slash := strings.Cut(h, "/")
		ns, away := strings.CutPrefix(ns, "~")
		suffix, wild := strings.CutPrefix(name, "*.")
		switch {
		case !slash:
			r.find(finding.Invalid, p, fmt.Sprintf("%q has no namespace before its name", finding.Clip(h)),
				`write namespace/name, such as "*/api.example.com"`)
		case ns != "*" && ns != "." && !isLabel(ns) && (ns != "" || !away):
			r.find(finding.Invalid, p, fmt.Sprintf("%q is not a namespace", finding.Clip(ns)),
				`write a namespace, "." for its own or "*" for any; "~" before it takes away`)
		case name != "*" && !isHost(suffix):
			r.find(finding.Invalid, p, fmt.Sprintf("%q is not a host name", finding.Clip(name)),
				"write a whole name such as till.shop.svc.cluster.local, *.example.com, or * for all")
		case name != "*" && !wild && !strings.Contains(name, "."):
			r.find(finding.Invalid, p, fmt.Sprintf("%q is a short name, which no service has", finding.Clip(name)),
				"write the whole name, such as "+finding.Clip(name)+".shop.svc.cluster.local")
		case slices.Contains(hosts[:i], h):
			r.find(finding.Invalid, p, fmt.Sprintf("%q is written twice", finding.Clip(h)), "keep one of the two")
		}
	}
}
