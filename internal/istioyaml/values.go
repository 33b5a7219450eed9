package istioyaml

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	selectorapi "istio.io/api/type/v1beta1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// isLabel: one DNS label.
func isLabel(s string) bool { return len(validation.IsDNS1123Label(s)) == 0 }

// isSubdomain: DNS labels joined by dots.
func isSubdomain(s string) bool { return len(validation.IsDNS1123Subdomain(s)) == 0 }

// isHost: a host name, in any case, perhaps with a final dot.
func isHost(s string) bool { return isSubdomain(strings.ToLower(strings.TrimSuffix(s, "."))) }

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
		r.refuse(CodeInvalid, path, fmt.Sprintf("%q is neither an IP address nor a range", clip(v)), "write an address such as 192.0.2.7, or a range such as 192.0.2.0/24")
	}
}

func (r *report) portText(path, v string) {
	if n, err := strconv.ParseUint(v, 10, 16); err != nil || n == 0 {
		r.refuse(CodeInvalid, path, fmt.Sprintf("%q is not a port", clip(v)), "write a number from 1 to 65535")
	}
}

func (r *report) portNumber(path string, n int64) {
	if n < 1 || n > 65535 {
		r.refuse(CodeInvalid, path, fmt.Sprintf("%d is not a port", n), "write a number from 1 to 65535")
	}
}

// selector checks a workload selector: plain labels, no patterns.
func (r *report) selector(path string, s *selectorapi.WorkloadSelector) {
	r.matchLabels(path+".matchLabels", s.GetMatchLabels())
}

func (r *report) matchLabels(path string, labels map[string]string) {
	m := make(map[string]any, len(labels))
	for k, v := range labels {
		m[k] = v
	}
	r.labels(path, m)
}
