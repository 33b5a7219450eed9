// Package compile turns what was written and registered into what it means: snapshot in, mesh and findings out.
// It is pure: no I/O, no clock, same input, same output.
package compile

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/kind"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/peerrules"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/spiffe"
)

const (
	defaultDomain         = "cluster.local"
	defaultCertificateTTL = time.Hour
)

// steps in their order: each reads what the earlier ones wrote.
var steps = []func(*compiler){
	posture, closings, instances, peerAuths, services, peers, policies, workloads, imports, addresses, exports,
	callers, outbound, proxies, gatewayEndpoints, endpoints, importEndpoints,
}

// Mesh compiles a snapshot. Without a Mesh object it returns nil and a finding that says so.
func Mesh(snap *snapshot.Snapshot) (*model.Mesh, []finding.Finding) {
	c := &compiler{snap: snap, cfg: snap.Config}
	if c.cfg == nil || c.cfg.Mesh() == nil {
		return nil, []finding.Finding{{
			Code: "ISM0001", Severity: finding.Error, Message: "no Mesh object is configured, so nothing is served",
			Remedy: "write a Mesh (docs/kinds/mesh.md) into the configuration folder",
		}}
	}
	for _, step := range steps {
		step(c)
		if c.mesh == nil {
			break
		}
	}
	finding.Sort(c.findings)
	return c.mesh, c.findings
}

// compiler carries one compilation; nothing outlives it but mesh and findings.
type compiler struct {
	snap     *snapshot.Snapshot
	cfg      *snapshot.Config
	mesh     *model.Mesh
	findings []finding.Finding

	defaultMode  model.MTLSMode
	defaultAllow bool
	aliases      []string

	closed       map[string][]closing // by namespace; "" is the whole mesh
	closedScopes map[string]bool
	room         room
	backends     map[string]*backends // by namespace
	keys         map[*model.Service]snapshot.Key
	mtls         peerAuthIndex
	modes        map[*instance]modes
	authz        policyIndex
	byHost       map[string]*model.Service
	backing      map[*model.Port][]backing
	imported     map[model.EndpointSet]*model.Import
	verdicts     map[string]peerrules.Verdict // by MeshPeer
}

func (c *compiler) find(key snapshot.Key, code string, sev finding.Severity, field, message, remedy string) {
	o := c.cfg.Origin(key)
	c.findings = append(c.findings, finding.Finding{
		Code: code, Severity: sev, Object: key.String(), Field: field, File: o.File, Line: o.LineOf(field),
		Message: message, Remedy: remedy,
	})
}

// ref names an object together with where it was written.
func (c *compiler) ref(key snapshot.Key) model.Ref {
	return at(key.String(), c.cfg.Origin(key))
}

func at(what string, o snapshot.Origin) model.Ref {
	if o.File == "" {
		return model.Ref(what)
	}
	return model.Ref(fmt.Sprintf("%s (%s:%d)", what, o.File, o.Line))
}

// guarded works on one object. A fault of ours there is a finding on that object and never the end of the compilation.
func (c *compiler) guarded(key snapshot.Key, work func()) {
	defer func() {
		fault := recover()
		if fault == nil {
			return
		}
		reason := fmt.Sprintf("Isthmus fails on it: %v", fault)
		c.find(key, "ISM0202", finding.Error, "", reason,
			"this is a fault of Isthmus: report it with the object, and write the object otherwise meanwhile")
		if k, ok := kind.Named(key.Kind); ok && k.Security {
			c.shut(snapshot.Closed{Key: key, Origin: c.cfg.Origin(key), Reason: reason})
		}
	}()
	work()
}

func posture(c *compiler) {
	m := c.cfg.Mesh()
	td, err := spiffe.ParseTrustDomain(m.Spec.TrustDomain)
	if err != nil {
		c.find(snapshot.Key{Kind: "Mesh", Name: m.Name}, "ISM0002", finding.Error, "spec.trustDomain",
			fmt.Sprintf("%q is no SPIFFE trust domain: %v", m.Spec.TrustDomain, err), "use lower-case letters, digits, dots, dashes and underscores")
		return
	}
	c.mesh = &model.Mesh{
		Name: m.Name, TrustDomain: td, Domain: m.Spec.Domain, RootNamespace: m.Spec.RootNamespace,
		CertificateTTL: defaultCertificateTTL,
		AllowAny:       m.Spec.Outbound == v1alpha1.OutboundAllowAny,
		HandOver:       m.Spec.SameNode != v1alpha1.SameNodeNetwork,
		Services:       map[model.ServiceID]*model.Service{},
		Workloads:      map[model.WorkloadID]*model.Workload{},
		Proxies:        map[string]*model.Proxy{},
		Endpoints:      map[model.EndpointSet][]model.Endpoint{},
		Peers:          map[string]*model.Peer{},
		Roots:          map[string][]byte{td.Name(): c.snap.Roots},
	}
	if c.mesh.Domain == "" {
		c.mesh.Domain = defaultDomain
	}
	if c.mesh.RootNamespace == "" {
		c.mesh.RootNamespace = spiffe.SystemNamespace
	}
	if m.Spec.CertificateTTL != nil {
		c.mesh.CertificateTTL = m.Spec.CertificateTTL.Duration
	}
	c.defaultMode = mode(string(m.Spec.MTLS), model.Strict)
	c.defaultAllow = m.Spec.DefaultAction == v1alpha1.DefaultAllow
	c.aliases = m.Spec.TrustDomainAliases
	c.mesh.Namespaces = namespaces(c.snap)
}

// namespaces are those written, and those of services and workloads; sorted.
func namespaces(snap *snapshot.Snapshot) []string {
	seen := map[string]bool{}
	for _, n := range snapshot.Of[*corev1.Namespace](snap.Config) {
		seen[n.Name] = true
	}
	for _, s := range snapshot.Of[*corev1.Service](snap.Config) {
		seen[s.Namespace] = true
	}
	for _, i := range snapshot.Of[*v1alpha1.FederatedImport](snap.Config) {
		seen[i.Namespace] = true
	}
	if snap.Registry != nil {
		for _, w := range snap.Registry.Workloads {
			seen[w.Namespace] = true
		}
	}
	return sortedKeys(seen)
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
