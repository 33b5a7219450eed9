package agents

import (
	"strings"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/grant"
	"isthmus.dev/isthmus/internal/peerrules"
	"isthmus.dev/isthmus/internal/snapshot"
)

// Limits on the content of one report. A compromised agent must not cost more than itself.
const (
	maxReason = 1024
	maxPeers  = 1000
	// ports and connections of one workload
	maxOutside = 20
	// a gateway has at most two inner and two outer addresses
	maxElsewhere = 4
)

// bound truncates what is only displayed, so that it cannot fill memory, metrics or screens.
func bound(r *agentapi.Report, role snapshot.Role) {
	r.Version, r.Envoy.Version, r.Envoy.LastCrash = finding.Truncate(r.Version), finding.Truncate(r.Envoy.Version),
		finding.Truncate(r.Envoy.LastCrash)
	r.Builtin = finding.Truncate(r.Builtin)
	r.Certs = r.Certs[:min(len(r.Certs), grant.MaxWorkloads+1)]
	for i := range r.Certs {
		c := &r.Certs[i]
		c.SPIFFEID, c.Serial, c.Fingerprint, c.Root = finding.Truncate(c.SPIFFEID), finding.Truncate(c.Serial),
			finding.Truncate(c.Fingerprint), finding.Truncate(c.Root)
	}
	r.Roots = r.Roots[:min(len(r.Roots), peerrules.MaxRoots)]
	for i := range r.Roots {
		r.Roots[i] = finding.Truncate(r.Roots[i])
	}
	if role != snapshot.RoleGateway || len(r.Peers) > maxPeers {
		r.Peers = nil
	}
	if role == snapshot.RoleGateway || len(r.Sidecars) > grant.MaxWorkloads {
		r.Sidecars = nil
	}
	for workload, s := range r.Sidecars {
		s.Version, s.LastCrash = finding.Truncate(s.Version), finding.Truncate(s.LastCrash)
		r.Sidecars[workload] = s
	}
	r.Troubles = r.Troubles[:min(len(r.Troubles), grant.MaxWorkloads)]
	for i := range r.Troubles {
		t := &r.Troubles[i]
		t.Workload, t.Reason = finding.Truncate(t.Workload),
			strings.ToValidUTF8(t.Reason[:min(len(t.Reason), maxReason)], "")
	}
	r.Outside = r.Outside[:min(len(r.Outside), grant.MaxWorkloads)]
	for i := range r.Outside {
		o := &r.Outside[i]
		o.Workload, o.Ports = finding.Truncate(o.Workload), o.Ports[:min(len(o.Ports), maxOutside)]
		o.Connections = o.Connections[:min(len(o.Connections), maxOutside)]
		o.Plaintext = o.Plaintext[:min(len(o.Plaintext), maxOutside)]
		for n := range o.Plaintext {
			o.Plaintext[n] = finding.Truncate(o.Plaintext[n])
		}
		for n := range o.Connections {
			o.Connections[n] = finding.Truncate(o.Connections[n])
		}
	}
	r.Elsewhere = r.Elsewhere[:min(len(r.Elsewhere), maxElsewhere)]
	if role == snapshot.RoleGateway {
		r.Workloads, r.Troubles, r.Outside = nil, nil, nil
	} else {
		r.Gateway, r.Elsewhere = nil, nil
	}
}
