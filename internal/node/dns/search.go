package dns

import (
	"strings"

	"golang.org/x/net/publicsuffix"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/model"
)

// searched completes a short name as a resolver with the mesh's search list does, so that no workload needs one: "echo"
// in the workload's own namespace, "echo.default" and "echo.default.svc" in the namespace that they name. It is empty
// for every other name.
//
// A name that is listed as it is comes first, and where names outside the mesh can be asked for, "web.dev" is one of
// them, whatever namespaces there are. One label alone is never refused by an address: programs ask so for their own
// host.
func searched(t *agentapi.DNSTable, namespace, name string) string {
	if t.MeshSuffix == "" || name == "" {
		return ""
	}
	domain := model.DomainOf(t.MeshSuffix)
	switch labels := strings.Split(name, "."); {
	case labels[len(labels)-1] == "localhost", strings.HasSuffix("."+name, "."+domain):
		return ""
	case len(labels) == 1:
		return name + "." + namespace + "." + t.MeshSuffix
	case len(labels) == 2 && !(t.Forward && topLevel(labels[1])):
		return name + "." + t.MeshSuffix
	case len(labels) == 3 && labels[2] == "svc":
		return strings.TrimSuffix(name, "svc") + t.MeshSuffix
	}
	return ""
}

// topLevel: the label is a top-level domain of the Internet.
func topLevel(label string) bool {
	_, known := publicsuffix.PublicSuffix(label)
	return known
}
