package meshd

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/ca"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/peerrules"
	"isthmus.dev/isthmus/internal/reserved"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/state"
)

// Bounds on what one report may say. An agent that is not ours any more must not cost more than itself.
const (
	maxText      = 256
	maxPeers     = 1000
	maxPorts     = 256
	maxAddresses = 16
	maxLabels    = 64
	maxRefused   = 100
)

// bound cuts off what only shows, so that it cannot fill memory, metrics or screens.
func bound(r *agentapi.Report, role snapshot.Role) {
	r.Version, r.Envoy.Version = cut(r.Version), cut(r.Envoy.Version)
	r.Certs = r.Certs[:min(len(r.Certs), maxWorkloads+1)]
	for i := range r.Certs {
		c := &r.Certs[i]
		c.SPIFFEID, c.Serial, c.Fingerprint, c.Root = cut(c.SPIFFEID), cut(c.Serial), cut(c.Fingerprint), cut(c.Root)
	}
	r.Roots = r.Roots[:min(len(r.Roots), peerrules.MaxRoots)]
	for i := range r.Roots {
		r.Roots[i] = cut(r.Roots[i])
	}
	if role != snapshot.RoleGateway || len(r.Peers) > maxPeers {
		r.Peers = nil
	}
	if role == snapshot.RoleGateway {
		r.Workloads = nil
	} else {
		r.Gateway = nil
	}
}

func cut(s string) string { return strings.ToValidUTF8(s[:min(len(s), maxText)], "") }

// acceptWorkloads sorts a node's workloads, and leaves out those that its token does not cover or that make no sense.
func acceptWorkloads(n state.Node, ws []snapshot.Workload) (accepted []snapshot.Workload, refused []finding.Finding) {
	seen := map[[2]string]bool{}
	for _, w := range ws {
		f := finding.Finding{Code: "ISM0014", Severity: finding.Error, Object: "workload " + cut(w.Namespace) + "/" + cut(w.Name)}
		err := checkWorkload(w)
		switch {
		case err != nil:
			f.Message = fmt.Sprintf("node %s registers it with %v; the workload is not registered", n.Name, err)
			f.Remedy = "mend the node's settings"
		case seen[[2]string{w.Namespace, w.Name}]:
			f.Message = fmt.Sprintf("node %s registers it twice; the first is used", n.Name)
			f.Remedy = "give each workload of a namespace a name of its own"
		case !ca.Granted(n.Identities, w.Namespace, w.ServiceAccount):
			f.Code, f.Field = "ISM0013", "serviceAccount"
			f.Message = fmt.Sprintf("node %s may not host service account %s/%s; the workload is not registered", n.Name, w.Namespace, w.ServiceAccount)
			f.Remedy = fmt.Sprintf("join the node with a token that grants it: isthmus token create --node %s --identity %s/%s", n.Name, w.Namespace, w.ServiceAccount)
		default:
			seen[[2]string{w.Namespace, w.Name}] = true
			w.Node = n.Name
			accepted = append(accepted, w)
			continue
		}
		if len(refused) < maxRefused {
			refused = append(refused, f)
		}
	}
	slices.SortFunc(accepted, func(x, y snapshot.Workload) int {
		return slices.Compare([]string{x.Namespace, x.Name}, []string{y.Namespace, y.Name})
	})
	return accepted, refused
}

// checkWorkload refuses what could not have come from an agent's settings. Names go into identities, host names and Envoy's
// configuration; addresses into other nodes' connections.
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
			return fmt.Errorf("the %s %q: use lower-case letters, digits and hyphens", c.what, cut(c.value))
		}
	}
	if len(w.Addresses) > maxAddresses || len(w.Ports) > maxPorts || len(w.Labels) > maxLabels {
		return fmt.Errorf("%d addresses, %d ports and %d labels: at most %d, %d and %d are possible", len(w.Addresses), len(w.Ports), len(w.Labels), maxAddresses, maxPorts, maxLabels)
	}
	for _, a := range w.Addresses {
		if err := checkAddress(a); err != nil {
			return err
		}
	}
	for _, p := range w.Ports {
		if p.Number == 0 || len(p.Name) > maxText {
			return fmt.Errorf("the port %q number %d", cut(p.Name), p.Number)
		}
		if what := reserved.Port(p.Number); what != "" {
			return fmt.Errorf("the port %d, %s", p.Number, what)
		}
	}
	for k, v := range w.Labels {
		if len(validation.IsQualifiedName(k)) > 0 || len(validation.IsValidLabelValue(v)) > 0 {
			return fmt.Errorf("the label %q: %q", cut(k), cut(v))
		}
	}
	if w.Netns != "" && (!filepath.IsAbs(w.Netns) || filepath.Clean(w.Netns) != w.Netns || len(w.Netns) > maxText || strings.ContainsRune(w.Netns, 0)) {
		return fmt.Errorf("the network namespace %q: give its whole path", cut(w.Netns))
	}
	return nil
}

func checkGateway(g snapshot.GatewayInfo) error {
	for _, addrs := range [][]netip.Addr{g.Inner(), g.Outer()} {
		for _, a := range addrs {
			if err := checkAddress(a); err != nil {
				return err
			}
		}
		if len(addrs) == 2 && (!addrs[0].Is4() || !addrs[1].Is6()) {
			return fmt.Errorf("the addresses %s and %s: give an IPv4 and an IPv6 one", addrs[0], addrs[1])
		}
	}
	return nil
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
