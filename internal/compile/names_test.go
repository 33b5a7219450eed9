package compile

import (
	"strings"
	"testing"
)

// searchList is what Kubernetes gives a workload, with ndots:5.
func searchList(namespace string) []string {
	return []string{namespace + ".svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example"}
}

// asked are the names that a resolver asks for, in their order: those with fewer dots than 5 are tried last as they
// are.
func asked(name, namespace string) []string {
	if strings.HasSuffix(name, ".") {
		return []string{strings.TrimSuffix(name, ".")}
	}
	var out []string
	for _, s := range searchList(namespace) {
		out = append(out, name+"."+s)
	}
	if strings.Count(name, ".") < 5 {
		return append(out, name)
	}
	return append([]string{name}, out...)
}

// TestNamesOfServices: whatever a resolver asks for on behalf of a program in any namespace that means Service b of
// namespace default, before it comes to b's own name, no other namespace may serve.
func TestNamesOfServices(t *testing.T) {
	const b = "b.default.svc.cluster.local"
	c := ownership()
	for _, from := range []string{"default", "lab", "shop"} {
		written := []string{"b.default", "b.default.svc", b, b + "."}
		if from == "default" {
			written = append(written, "b")
		}
		for _, name := range written {
			for _, host := range asked(name, from) {
				if host == b {
					break
				}
				if c.mayServe("lab", host) {
					t.Errorf("a program in %s writes %s, its resolver asks for %s, and namespace lab may serve that",
						from, name, host)
				}
			}
		}
		if c.mayServe("lab", b) {
			t.Error("namespace lab may serve " + b)
		}
	}
}

func TestMayClaimHost(t *testing.T) {
	for host, want := range map[string]struct{ byDefault, byLab bool }{
		"rates.bank.example":          {true, true},
		"bank.com":                    {true, true},
		"a.lab.example":               {true, true},
		"b":                           {},
		"b.default":                   {true, false},
		"b.lab":                       {false, true},
		"b.default.svc":               {true, false},
		"b.unknown.svc":               {},
		"b.default.svc.cluster.local": {true, false},
		"b.default.svc.cluster.local.cluster.local":             {true, false},
		"b.default.svc.cluster.local.svc.cluster.local":         {true, false},
		"b.default.svc.cluster.local.lab.svc.cluster.local":     {true, false},
		"b.default.svc.cluster.local.corp.example":              {true, false},
		"b.default.svc.lab.svc.cluster.local":                   {true, false},
		"b.default.svc.svc.cluster.local":                       {true, false},
		"b.default.lab.svc.cluster.local":                       {},
		"pod-0.b.default.svc.cluster.local":                     {true, false},
		"pod-0.nothing.default.svc.cluster.local":               {},
		"api.bank.example.lab.svc.cluster.local":                {},
		"api.bank.example.cluster.local":                        {},
		"b.cluster.local":                                       {},
		"b.svc.cluster.local":                                   {},
		"default.svc.cluster.local":                             {},
		"svc.cluster.local":                                     {},
		"cluster.local":                                         {},
		"xcluster.local":                                        {true, true},
		"b.default.svc.xcluster.local":                          {true, true},
		"b.default.svc.cluster.local.example.svc.cluster.local": {true, false},
	} {
		c := ownership()
		if got := c.mayServe("default", host); got != want.byDefault {
			t.Errorf("namespace default may serve %s: %v", host, got)
		}
		if got := c.mayServe("lab", host); got != want.byLab {
			t.Errorf("namespace lab may serve %s: %v", host, got)
		}
	}
}

func ownership() hostOwnership {
	return hostOwnership{"cluster.local", []string{"default", "lab", "shop"}, func(namespace, name string) bool {
		return namespace == "default" && name == "b"
	}}
}

func (h hostOwnership) mayServe(namespace, host string) bool {
	message, _ := h.fault(namespace, host)
	return message == ""
}
