package check

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	selectorapi "istio.io/api/type/v1beta1"
	"k8s.io/apimachinery/pkg/util/validation"

	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/reserved"
)

// isLabel reports whether s is one DNS label.
func isLabel(s string) bool { return len(validation.IsDNS1123Label(s)) == 0 }

// isSubdomain reports whether s is a sequence of DNS labels joined by dots.
func isSubdomain(s string) bool { return len(validation.IsDNS1123Subdomain(s)) == 0 }

// isHost reports whether s is a host name, in any case, optionally with a trailing dot. Names whose last label is a
// number are refused because resolvers parse them as addresses: "127.1", "0x7f000001".
func isHost(s string) bool {
	labels := strings.Split(strings.ToLower(strings.TrimSuffix(s, ".")), ".")
	return isSubdomain(strings.Join(labels, ".")) &&
		slices.IndexFunc(labels, func(l string) bool { return len(l) > 63 }) < 0 &&
		!isNumber(labels[len(labels)-1])
}

func isNumber(label string) bool {
	rest, hex := strings.CutPrefix(label, "0x")
	_, err := strconv.ParseUint("0"+rest, 16, 64)
	return strings.Trim(label, "0123456789") == "" || hex && err == nil
}

func isIP(s string) bool {
	a, err := netip.ParseAddr(s)
	return err == nil && a.Zone() == ""
}

func isRange(s string) bool {
	_, err := netip.ParsePrefix(s)
	return err == nil
}

func (r *report) ipOrRange(path, v string) {
	if !isIP(v) && !isRange(v) {
		r.find(finding.Invalid, path,
			fmt.Sprintf("%q is neither an IP address nor a range", finding.Clip(v)),
			"write an address such as 192.0.2.7, or a range such as 192.0.2.0/24")
	}
}

func (r *report) portText(path, v string) {
	if n, err := strconv.ParseUint(v, 10, 16); err != nil || n == 0 {
		r.find(finding.Invalid, path,
			fmt.Sprintf("%q is not a port", finding.Clip(v)),
			"write a number from 1 to 65535")
	}
}

func (r *report) portNumber(path string, n int64) {
	if n < 1 || n > 65535 {
		r.find(finding.Invalid, path, fmt.Sprintf("%d is not a port", n), "write a number from 1 to 65535")
	}
}

// Limits per object. Each port of a Service costs a filter chain with its own TLS context at every server. Each host
// and port of a ServiceEntry costs a cluster at every caller, about 100 kB of Envoy's memory.
const (
	maxServicePorts = 128
	maxHosts        = 128
	maxDestinations = 512 // hosts times ports
	maxAddresses    = 256
	maxEndpoints    = 2048
	maxNamespaces   = 256
	maxSidecarHosts = 1024
)

func (r *report) atMost(path string, n, most int) {
	if n > most {
		r.find(finding.Invalid, path, fmt.Sprintf("%d items, more than %d", n, most), "split the object into several")
	}
}

// notReserved refuses a reserved address, range or host name (see package reserved).
func (r *report) notReserved(path, v string) {
	what := ""
	if a, err := netip.ParseAddr(v); err == nil {
		what = reserved.Address(a)
	} else if p, err := netip.ParsePrefix(v); err == nil {
		if what = reserved.Range(p); what != "" {
			what = "a range that holds " + what
		}
	} else if h := strings.ToLower(strings.TrimSuffix(v, ".")); h == "localhost" ||
		strings.HasSuffix(h, ".localhost") || h == "localhost.localdomain" {
		what = "a name of the loopback address"
	}
	if what != "" {
		r.find(finding.Reserved, path, fmt.Sprintf("%s is %s, which nothing may use", finding.Clip(v), what),
			"write the address at which other hosts reach it")
	}
}

// ownPort checks a port at which a service of the mesh is called. It must not be one of the mesh's own ports.
func (r *report) ownPort(path string, n int64) {
	r.portNumber(path, n)
	if what := reserved.Port(uint16(n)); n > 0 && n <= 65535 && what != "" {
		r.find(finding.Reserved, path, fmt.Sprintf("%d is %s", n, what), "use another port")
	}
}

// selector checks a workload selector: plain labels, no patterns.
func (r *report) selector(path string, s *selectorapi.WorkloadSelector) {
	r.matchLabels(path+".matchLabels", s.GetMatchLabels())
}

// matchLabels checks the syntax of labels.
func (r *report) matchLabels(path string, labels map[string]string) {
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		at := finding.Child(path, k)
		if len(validation.IsQualifiedName(k)) > 0 {
			r.find(finding.Metadata, at, fmt.Sprintf("%q cannot be a label's key", finding.Clip(k)),
				"use letters, digits, '-', '_' and '.', at most 63, optionally after a DNS name and '/'")
		}
		if len(validation.IsValidLabelValue(labels[k])) > 0 {
			r.find(finding.Metadata, at, fmt.Sprintf("%q cannot be a label's value", finding.Clip(labels[k])),
				"use at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit")
		}
	}
}
