package check

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/reserved"
	"isthmus.dev/isthmus/internal/spiffe"
)

// Limits of a workload certificate's lifetime: long enough to renew, short enough to limit the use of a stolen key.
const (
	minCertificateTTL = 10 * time.Second
	maxCertificateTTL = 90 * 24 * time.Hour
)

// maxDomain leaves room for the prefix p<port>.<name>.<namespace>.svc. A TLS server name has at most 255 characters,
// and Envoy rejects a cluster with a longer one.
const maxDomain = 100

func mesh(r *report, o *v1alpha1.Mesh) {
	r.ownTrustDomain("spec.trustDomain", o.Spec.TrustDomain)
	for i, a := range o.Spec.TrustDomainAliases {
		r.ownTrustDomain(fmt.Sprintf("spec.trustDomainAliases[%d]", i), a)
	}
	if d := o.Spec.Domain; d != "" && (!isHost(d) || len(d) > maxDomain) {
		r.find(finding.Invalid, "spec.domain",
			fmt.Sprintf("%q is not a DNS name of at most %d characters", finding.Clip(d), maxDomain),
			"write a name such as cluster.local")
	}
	if o.Spec.RootNamespace != "" && !isLabel(o.Spec.RootNamespace) {
		r.find(finding.Invalid, "spec.rootNamespace",
			fmt.Sprintf("%q cannot be a namespace", finding.Clip(o.Spec.RootNamespace)),
			"write a namespace such as isthmus-system")
	}
	r.duration("spec.certificateTTL", o.Spec.CertificateTTL, minCertificateTTL, maxCertificateTTL)
	if f := o.Spec.Federation; f != nil {
		r.hostPorts("spec.federation.gatewayAddresses", f.GatewayAddresses)
	}
}

func (r *report) ownTrustDomain(path, v string) {
	if _, err := spiffe.ParseTrustDomain(v); err != nil || strings.Contains(v, "/") {
		r.find(finding.Invalid, path,
			fmt.Sprintf("%q is not a trust domain", finding.Clip(v)),
			"write a name such as cards.example, without spiffe://")
	}
}

func (r *report) duration(path string, d *metav1.Duration, low, high time.Duration) {
	if d != nil && (d.Duration < low || d.Duration > high) {
		r.find(finding.Invalid, path,
			fmt.Sprintf("%s is out of range", d.Duration), fmt.Sprintf("write a duration from %s to %s", low, high))
	}
}

// hostPorts checks addresses to dial: host:port, where host is an IP address or DNS name.
func (r *report) hostPorts(path string, list []string) {
	for i, v := range list {
		at := strings.LastIndexByte(v, ':')
		if at < 0 {
			at = len(v)
		}
		host, port := v[:at], strings.TrimPrefix(v[at:], ":")
		n, err := strconv.ParseUint(port, 10, 16)
		bracketed, _ := strings.CutSuffix(strings.TrimPrefix(host, "["), "]")
		v6, v6err := netip.ParseAddr(bracketed)
		isV6 := strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") && v6err == nil && v6.Is6() &&
			v6.Zone() == ""
		if err != nil || n == 0 || !isV6 && !isIPv4(host) && !isHost(host) {
			r.find(finding.Invalid, fmt.Sprintf("%s[%d]", path, i),
				fmt.Sprintf("%q is not host:port", finding.Clip(v)),
				"write for example 192.0.2.10:15443, [2001:db8::1]:15443 or gw.cards.example:15443")
			continue
		}
		r.notReserved(fmt.Sprintf("%s[%d]", path, i), bracketed)
		if what := reserved.GatewayPort(uint16(n)); what != "" {
			r.find(finding.Reserved, fmt.Sprintf("%s[%d]", path, i), fmt.Sprintf("%d is %s", n, what),
				"write the port that peers reach, usually 15443")
		}
	}
}

func isIPv4(s string) bool {
	a, err := netip.ParseAddr(s)
	return err == nil && a.Is4()
}
