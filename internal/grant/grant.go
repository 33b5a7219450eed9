// Package grant defines what an administrator lets a node host, and checks a node's reports against it. The
// administrator decides a workload's name, identity, labels and addresses. The node only reports where it runs and
// whether it is ready.
package grant

import (
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/kind"
	"isthmus.dev/isthmus/internal/reserved"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/spiffe"
)

// Grant is the permission that a join token and then the joined node carry. The zero Grant permits nothing.
type Grant struct {
	// Identities that the node may host. "<namespace>/<service account>" covers workloads named like the account,
	// optionally followed by a number (web-1, web-v2, web-7d4f9), with that name in the labels app and
	// app.kubernetes.io/name. "<namespace>/*" covers a whole namespace, "*" all namespaces but that of the gateways; in
	// those the node may choose names and labels freely.
	Identities []string `json:"identities,omitempty"`
	// Workloads whose name or labels differ from their service account.
	Workloads []Workload `json:"workloads,omitempty"`
	// Addresses that the node's workloads, or the gateway, may have.
	Addresses []netip.Prefix `json:"addresses,omitempty"`
}

// Workload is one permitted workload.
type Workload struct {
	Namespace string `json:"namespace"`
	// Name, or a name pattern: "web-*" covers web-1, web-2 and so on.
	Name           string            `json:"name"`
	ServiceAccount string            `json:"serviceAccount"`
	Labels         map[string]string `json:"labels,omitempty"`
}

// Private returns the addresses that a node's workloads may have by default: private ranges (RFC 1918, RFC 6598, RFC
// 4193).
func Private() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"),
		netip.MustParsePrefix("192.168.0.0/16"),
		netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("fc00::/7"),
	}
}

// Limits of one grant.
const (
	maxIdentities = 256
	maxGranted    = 256
	maxRanges     = 64
)

var (
	dnsLabel = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	account  = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`)
	// numbered matches the suffix of one of several workloads of an account. It requires a digit, so that web does not
	// cover web-admin.
	numbered = regexp.MustCompile(`^-[a-z0-9-]*[0-9][a-z0-9-]*$`)
)

// Check returns an error if a grant is invalid for an agent of the role.
func (g Grant) Check(role snapshot.Role) error {
	if len(g.Identities) > maxIdentities {
		return fmt.Errorf("%d identities: name at most %d, or a whole namespace as <namespace>/*", len(g.Identities),
			maxIdentities)
	}
	for _, i := range g.Identities {
		if err := checkIdentity(role, i); err != nil {
			return err
		}
	}
	if len(g.Workloads) > maxGranted {
		return fmt.Errorf("%d workloads: name at most %d, or several at once as <namespace>/<name>-*", len(g.Workloads),
			maxGranted)
	}
	if role == snapshot.RoleGateway && len(g.Workloads) > 0 {
		return fmt.Errorf("%s: a gateway has none", kind.Workload(g.Workloads[0].Namespace, g.Workloads[0].Name))
	}
	for _, w := range g.Workloads {
		if err := w.check(); err != nil {
			return fmt.Errorf("%s: %w", kind.Workload(w.Namespace, w.Name), err)
		}
	}
	if len(g.Addresses) > maxRanges {
		return fmt.Errorf("%d ranges of addresses: name at most %d", len(g.Addresses), maxRanges)
	}
	for _, p := range g.Addresses {
		if !p.IsValid() || p != p.Masked() || p.Addr().Is4In6() {
			return fmt.Errorf("addresses %q: say a range such as 10.0.0.0/24 or fd00::/64, or one address", p)
		}
		if what := reserved.Address(p.Addr()); p.IsSingleIP() && what != "" {
			return fmt.Errorf("address %s is %s, which nobody may have: say the one at which others reach it", p.Addr(),
				what)
		}
	}
	return nil
}

// checkIdentity checks one identity. Only gateways may have identities in the gateways' namespace, and no others.
func checkIdentity(role snapshot.Role, identity string) error {
	namespace, name, ok := strings.Cut(identity, "/")
	if identity != "*" && !(ok && dnsLabel.MatchString(namespace) && (name == "*" || account.MatchString(name))) {
		return fmt.Errorf("identity %q: say <namespace>/<service account>, <namespace>/* or *", identity)
	}
	if gateway := namespace == spiffe.SystemNamespace; gateway != (role == snapshot.RoleGateway) {
		if gateway {
			return fmt.Errorf("identity %q: the namespace %s is for gateways; make the token with role gateway",
				identity, spiffe.SystemNamespace)
		}
		return fmt.Errorf("identity %q: a gateway's identity is %s/<service account>", identity, spiffe.SystemNamespace)
	}
	return nil
}

func (w Workload) check() error {
	switch {
	case !dnsLabel.MatchString(w.Namespace) || !account.MatchString(w.stem()):
		return fmt.Errorf("say <namespace>/<name>, or <namespace>/<name>-* for several")
	case !account.MatchString(w.ServiceAccount):
		return fmt.Errorf("service account %q: use lower-case letters, digits and hyphens", w.ServiceAccount)
	case w.Namespace == spiffe.SystemNamespace:
		return fmt.Errorf("the namespace %s is for gateways", spiffe.SystemNamespace)
	case len(w.Labels) > maxLabels:
		return fmt.Errorf("%d labels: at most %d are possible", len(w.Labels), maxLabels)
	}
	for k, v := range w.Labels {
		if err := checkLabel(k, v); err != nil {
			return err
		}
	}
	return nil
}

func checkLabel(k, v string) error {
	if len(validation.IsQualifiedName(k)) > 0 || len(validation.IsValidLabelValue(v)) > 0 {
		return fmt.Errorf("the label %q: %q", finding.Truncate(k), finding.Truncate(v))
	}
	return nil
}

// stem returns the name without "-*".
func (w Workload) stem() string { return strings.TrimSuffix(w.Name, "-*") }

func (w Workload) several() bool { return w.stem() != w.Name }

func (w Workload) named(name string) bool {
	return name == w.Name || w.several() && strings.HasPrefix(name, w.stem()+"-")
}

// Parse parses "<namespace>/<name>[,sa=<service account>][,<label>=<value>…]". The service account and the label app
// default to the name.
func Parse(text string) (Workload, error) {
	head, rest, more := strings.Cut(text, ",")
	namespace, name, ok := strings.Cut(head, "/")
	if !ok {
		return Workload{}, fmt.Errorf("%q: say NAMESPACE/NAME[,sa=ACCOUNT][,LABEL=VALUE...]", text)
	}
	w := Workload{Namespace: namespace, Name: name, Labels: map[string]string{}}
	w.ServiceAccount = w.stem()
	for more {
		var part string
		part, rest, more = strings.Cut(rest, ",")
		switch k, v, ok := strings.Cut(part, "="); {
		case !ok || k == "":
			return Workload{}, fmt.Errorf("%q: %q is neither sa=ACCOUNT nor LABEL=VALUE", text, part)
		case k == "sa":
			w.ServiceAccount = v
		default:
			w.Labels[k] = v
		}
	}
	if len(w.Labels) == 0 {
		w.Labels["app"] = w.stem()
	}
	if err := w.check(); err != nil {
		return Workload{}, fmt.Errorf("%q: %w", text, err)
	}
	return w, nil
}

// Covers reports whether the node may have certificates for a service account.
func (g Grant) Covers(namespace, serviceAccount string) bool {
	if namespace == "" || serviceAccount == "" || serviceAccount == "*" {
		return false
	}
	return slices.Contains(g.Identities, namespace+"/"+serviceAccount) || g.handsOver(namespace) ||
		slices.ContainsFunc(g.Workloads,
			func(w Workload) bool { return w.Namespace == namespace && w.ServiceAccount == serviceAccount })
}

// handsOver reports whether a whole namespace is granted.
func (g Grant) handsOver(namespace string) bool {
	return slices.Contains(g.Identities, namespace+"/*") || namespace != spiffe.SystemNamespace &&
		slices.Contains(g.Identities, "*")
}

// Holds reports whether an address is granted.
func (g Grant) Holds(a netip.Addr) bool {
	return slices.ContainsFunc(g.Addresses, func(p netip.Prefix) bool { return p.Contains(a) })
}

// terms are what one part of a grant permits for a workload.
type terms struct {
	part   string            // which part; each has its own limit
	most   int               // maximum number of workloads
	labels map[string]string // required labels; nil if the node chooses them
}

// termsFor returns the narrowest part of the grant that covers a workload.
func (g Grant) termsFor(w snapshot.Workload) (terms, bool) {
	var found *Workload
	for i, granted := range g.Workloads {
		if granted.Namespace == w.Namespace && granted.ServiceAccount == w.ServiceAccount && granted.named(w.Name) &&
			(found == nil || granted.narrower(*found)) {
			found = &g.Workloads[i]
		}
	}
	rest, own := strings.CutPrefix(w.Name, w.ServiceAccount)
	switch part := w.Namespace + "/" + w.ServiceAccount; {
	case found != nil && found.several():
		return terms{found.Namespace + "/" + found.Name, maxOfOne, found.labels()}, true
	case found != nil:
		return terms{found.Namespace + "/" + found.Name, 1, found.labels()}, true
	case slices.Contains(g.Identities, part) && own && (rest == "" || numbered.MatchString(rest)):
		return terms{part, maxOfOne, map[string]string{
			"app":                    w.ServiceAccount,
			"app.kubernetes.io/name": w.ServiceAccount,
		}}, true
	case g.handsOver(w.Namespace):
		return terms{part, maxOfOne, nil}, true
	}
	return terms{}, false
}

// narrower reports whether w covers fewer names than another one that covers the same name.
func (w Workload) narrower(than Workload) bool {
	return !w.several() || than.several() && len(w.Name) > len(than.Name)
}

// labels is never nil: a workload without labels is granted exactly none.
func (w Workload) labels() map[string]string {
	if w.Labels == nil {
		return map[string]string{}
	}
	return maps.Clone(w.Labels)
}
