package compile

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/kind"
	"isthmus.dev/isthmus/internal/snapshot"
)

// reported returns findings about what is wrong at nodes, workloads and Envoys, from the reports in the snapshot.
func reported(snap *snapshot.Snapshot) []finding.Finding {
	who := sync.OnceValue(func() map[netip.Addr]string { return workloadsByAddress(snap) })
	var out []finding.Finding
	for _, r := range snap.Reports {
		out = append(out, r.Refused...)
		out = append(out, troubles(r)...)
		for _, o := range r.Outside {
			out = append(out, outside(r.Node, o, who)...)
		}
	}
	return append(out, contained(snap)...)
}

func workloadsByAddress(snap *snapshot.Snapshot) map[netip.Addr]string {
	out := map[netip.Addr]string{}
	for _, w := range snap.Registry.Workloads {
		for _, addr := range w.Addresses {
			out[addr] = w.Namespace + "/" + w.Name
		}
	}
	return out
}

// troubles returns findings about workloads that their node does not serve.
func troubles(r snapshot.Report) []finding.Finding {
	var out []finding.Finding
	for _, t := range r.Troubles {
		f := finding.New("ISM0280", workloadKey(t.Workload), "",
			kind.Node(r.Node).String()+" does not serve it: "+t.Reason)
		if t.Absent {
			f = finding.New("ISM0281", f.Object, "", f.Message)
		}
		out = append(out, f)
	}
	return out
}

// workloadKey returns the key of "<namespace>/<name>".
func workloadKey(workload string) kind.Key {
	ns, name, _ := strings.Cut(workload, "/")
	return kind.Workload(ns, name)
}

// outside returns findings about traffic of a node's workload that bypasses the mesh.
func outside(node string, o snapshot.Outside, who func() map[netip.Addr]string) []finding.Finding {
	var out []finding.Finding
	if o.Count > 0 && len(o.Connections) > 0 {
		out = append(out, finding.New("ISM0340", workloadKey(o.Workload), "",
			fmt.Sprintf("%d connections that were open before node %s captured it go on outside the mesh: %s",
				o.Count, node, some(o.Connections, o.Count))))
	}
	if o.PlaintextCount > 0 && len(o.Plaintext) > 0 {
		out = append(out, finding.New("ISM0342", workloadKey(o.Workload), "",
			"it takes plaintext, which STRICT would refuse, from "+some(named(o.Plaintext, who()), o.PlaintextCount)))
	}
	if len(o.Ports) > 0 {
		out = append(out, finding.New("ISM0341", workloadKey(o.Workload), "",
			fmt.Sprintf("node %s excludes its ports %s from capture: whoever reaches its address may call them, "+
				"in plaintext and whatever policies say", node, strings.Trim(fmt.Sprint(o.Ports), "[]"))))
	}
	return out
}

// some formats a sample and how many more there are.
func some(shown []string, count int) string {
	text := strings.Join(shown, ", ")
	if more := count - len(shown); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// named adds to addresses the names of their workloads, if known.
func named(addrs []string, who map[netip.Addr]string) []string {
	var out []string
	for _, text := range addrs {
		if a, err := netip.ParseAddr(text); err == nil {
			if workload := who[a.Unmap()]; workload != "" {
				text += " (workload " + workload + ")"
			}
		}
		out = append(out, text)
	}
	return out
}

// contained returns findings about objects that are closed at some proxy, and proxies for which no object could be
// blamed.
func contained(snap *snapshot.Snapshot) []finding.Finding {
	type place struct{ proxy, reason string }
	at := map[snapshot.Key][]place{}
	var out []finding.Finding
	for _, c := range snap.Contained {
		for _, q := range c.Quarantined {
			at[q.Key] = append(at[q.Key], place{c.Proxy, q.Reason})
		}
		if c.Stuck != "" {
			out = append(out, stuck(c))
		}
	}
	for key, places := range at {
		var proxies []string
		for _, p := range places[:min(len(places), 3)] {
			proxies = append(proxies, p.proxy)
		}
		out = append(out, finding.New("ISM0230", key, "",
			fmt.Sprintf("quarantined at %s, whose Envoy cannot run with it: what it selects is closed there. %s",
				some(proxies, len(places)), places[0].reason)))
	}
	slices.SortFunc(out, func(a, b finding.Finding) int { return a.Object.Compare(b.Object) })
	return out
}

func stuck(c snapshot.Contained) finding.Finding {
	f := finding.New("ISM0231", kind.Proxy(c.Proxy), "",
		"no object can be named that its Envoy cannot run with. "+c.Stuck)
	if c.Held {
		f.Message = "it runs on an earlier configuration, and changes since are not in force there: " + f.Message
	}
	return f
}
