package grant

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/kind"
	"isthmus.dev/isthmus/internal/reserved"
	"isthmus.dev/isthmus/internal/snapshot"
)

// Limits on one node's report. A compromised agent must not cost more than itself.
const (
	MaxWorkloads = 500
	maxOfOne     = 32 // workloads of one service account or of one "<name>-*"
	maxPorts     = 256
	maxAddresses = 16
	maxLabels    = 64
	maxFindings  = 100
)

// Judge checks a node's report against its grant. accepted, sorted, are the workloads that may be registered, with the
// granted labels. wrong are findings about the rest.
func (g Grant) Judge(
	node string, reported []snapshot.Workload,
) (accepted []snapshot.Workload, wrong []finding.Finding) {
	say := func(f *finding.Finding, w snapshot.Workload) {
		if f != nil && len(wrong) < maxFindings {
			f.Object = kind.Workload(finding.Truncate(w.Namespace), finding.Truncate(w.Name))
			wrong = append(wrong, *f)
		}
	}
	seen, count := map[[2]string]bool{}, map[string]int{}
	for _, w := range reported {
		t, refused := g.judge(node, w)
		switch name := [2]string{w.Namespace, w.Name}; {
		case refused != nil:
		case seen[name]:
			refused = new(finding.New("ISM0014", kind.Key{}, "",
				fmt.Sprintf("node %s registers it twice; the first is used", node),
				"give each workload of a namespace a name of its own"))
		case count[t.part] == t.most:
			refused = new(finding.New("ISM0243", kind.Key{}, "",
				fmt.Sprintf("node %s hosts %d workloads of %s already, and may host no more; the "+
					"workload is not registered", node, t.most, t.part)))
		default:
			seen[name] = true
			count[t.part]++
			w.Node = node
			var beyond *finding.Finding
			w.Labels, beyond = t.label(node, w)
			say(beyond, w)
			accepted = append(accepted, w)
			continue
		}
		say(refused, w)
	}
	slices.SortFunc(accepted, func(x, y snapshot.Workload) int {
		return slices.Compare([]string{x.Namespace, x.Name}, []string{y.Namespace, y.Name})
	})
	return accepted, wrong
}

// judge returns the terms under which a workload may be registered, or a finding.
func (g Grant) judge(node string, w snapshot.Workload) (terms, *finding.Finding) {
	if err := checkWorkload(w); err != nil {
		return terms{}, new(finding.New("ISM0014", kind.Key{}, "",
			fmt.Sprintf("node %s registers it with %v; the workload is not registered", node, err)))
	}
	t, ok := g.termsFor(w)
	switch {
	case !ok && !g.Covers(w.Namespace, w.ServiceAccount):
		return terms{}, new(finding.New("ISM0013", kind.Key{}, "serviceAccount",
			fmt.Sprintf("node %s may not host service account %s/%s; the workload is not registered", node,
				w.Namespace, w.ServiceAccount),
			accountRemedy(node, w)))
	case !ok:
		return terms{}, new(finding.New("ISM0240", kind.Key{}, "name",
			fmt.Sprintf("node %s may host service account %s/%s, but not under this name; the "+
				"workload is not registered", node, w.Namespace, w.ServiceAccount),
			fmt.Sprintf("name it %s or %s-1, or %s --workload %s/%s,sa=%s",
				w.ServiceAccount, w.ServiceAccount, anotherToken(node), w.Namespace, w.Name, w.ServiceAccount)))
	}
	for _, a := range w.Addresses {
		if !g.Holds(a) {
			return terms{}, new(finding.New("ISM0241", kind.Key{}, "addresses",
				fmt.Sprintf("workloads of node %s may not have the address %s; the workload is not registered", node,
					a),
				fmt.Sprintf("correct the address, or %s --address %s", anotherToken(node), a)))
		}
	}
	return t, nil
}

// anotherToken returns the remedy for a missing grant. The missing flag is to be appended.
func anotherToken(node string) string {
	return fmt.Sprintf("empty the node's stateDir and start it with another token, which grants this beside "+
		"all else that it hosts: "+
		"isthmus token create --node %s", node)
}

// accountRemedy returns the remedy for a service account that the node may not host. A workload that names none did not
// mean "default".
func accountRemedy(node string, w snapshot.Workload) string {
	first := "correct serviceAccount"
	if w.ServiceAccount == "default" {
		first = "write the workload's serviceAccount into the node's settings (left out, it is default)"
	}
	return fmt.Sprintf("%s, or %s --identity %s/%s", first, anotherToken(node), w.Namespace, w.ServiceAccount)
}

// label returns the granted labels for a workload. Additional labels from the node are ignored.
func (t terms) label(node string, w snapshot.Workload) (map[string]string, *finding.Finding) {
	if t.labels == nil {
		return w.Labels, nil
	}
	var beyond []string
	for k, v := range w.Labels {
		if t.labels[k] != v {
			beyond = append(beyond, k+"="+v)
		}
	}
	if len(beyond) == 0 {
		return t.labels, nil
	}
	slices.Sort(beyond)
	said := strings.Join(beyond, ",")
	return t.labels, new(finding.New("ISM0242", kind.Key{}, "labels",
		fmt.Sprintf("node %s gives it the labels %s, which were not granted; they are ignored", node,
			finding.Truncate(said)),
		fmt.Sprintf("take them out of the node's settings, or %s --workload %s/%s,sa=%s,%s",
			anotherToken(node), w.Namespace, w.Name, w.ServiceAccount, finding.Truncate(said))))
}

// checkWorkload refuses values that a correct agent would not send. Names go into identities, host names and Envoy's
// configuration; addresses go into other nodes' connections.
func checkWorkload(w snapshot.Workload) error {
	for _, c := range []struct {
		what, value string
		problems    []string
	}{
		{"namespace", w.Namespace, validation.IsDNS1123Label(w.Namespace)},
		{"name", w.Name, validation.IsDNS1123Subdomain(w.Name)},
		{"service account", w.ServiceAccount, validation.IsDNS1123Subdomain(w.ServiceAccount)},
	} {
		if len(c.problems) > 0 {
			return fmt.Errorf("the %s %q: use lower-case letters, digits and hyphens", c.what,
				finding.Truncate(c.value))
		}
	}
	if len(w.Addresses) > maxAddresses || len(w.Ports) > maxPorts || len(w.Labels) > maxLabels {
		return fmt.Errorf("%d addresses, %d ports and %d labels: at most %d, %d and %d are possible", len(w.Addresses),
			len(w.Ports), len(w.Labels), maxAddresses, maxPorts, maxLabels)
	}
	for _, a := range w.Addresses {
		if err := checkAddress(a); err != nil {
			return err
		}
	}
	for _, p := range w.Ports {
		if p.Number == 0 || len(p.Name) > finding.MaxText {
			return fmt.Errorf("the port %q number %d", finding.Truncate(p.Name), p.Number)
		}
		if what := reserved.Port(p.Number); what != "" {
			return fmt.Errorf("the port %d, %s", p.Number, what)
		}
	}
	for k, v := range w.Labels {
		if err := checkLabel(k, v); err != nil {
			return err
		}
	}
	if w.Netns != "" &&
		(!filepath.IsAbs(w.Netns) || filepath.Clean(w.Netns) != w.Netns || len(w.Netns) > finding.MaxText ||
			strings.ContainsRune(w.Netns, 0)) {
		return fmt.Errorf("the network namespace %q: give its whole path", finding.Truncate(w.Netns))
	}
	return nil
}

// Gateway checks a gateway's report against its grant. If no addresses were granted, it must match first, the first
// report after its join, which is nil before that.
func (g Grant) Gateway(info snapshot.GatewayInfo, first *snapshot.GatewayInfo) error {
	for _, addrs := range [][]netip.Addr{info.Inner(), info.Outer()} {
		for _, a := range addrs {
			if err := checkAddress(a); err != nil {
				return err
			}
			if len(g.Addresses) > 0 && !g.Holds(a) {
				return fmt.Errorf("the address %s was not granted: make a token with --address %s", a, a)
			}
		}
		if len(addrs) == 2 && (!addrs[0].Is4() || !addrs[1].Is6()) {
			return fmt.Errorf("the addresses %s and %s: give an IPv4 and an IPv6 one", addrs[0], addrs[1])
		}
	}
	if len(g.Addresses) == 0 && first != nil && *first != info {
		return fmt.Errorf("it joined with the inner address %s and the outer address %s, and may have others only "+
			"with a new token: isthmus token create --role gateway",
			join(first.Inner()), join(first.Outer()))
	}
	return nil
}

func join(addrs []netip.Addr) string {
	var texts []string
	for _, a := range addrs {
		texts = append(texts, a.String())
	}
	return strings.Join(texts, " and ")
}

func checkAddress(a netip.Addr) error {
	if what := reserved.Address(a); what != "" {
		return fmt.Errorf("the address %s, %s: give the one that others reach it by", a, what)
	}
	if a.Zone() != "" || a.Is4In6() {
		return fmt.Errorf("the address %q: give the one that others reach it by", a)
	}
	return nil
}
