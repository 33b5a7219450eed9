package spine

import (
	"fmt"
	"strings"
	"time"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/compile"
	"isthmus.dev/isthmus/internal/envoy"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/gate"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/schema"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/source/file"
	"isthmus.dev/isthmus/internal/view"
	"isthmus.dev/isthmus/internal/vip"
	"isthmus.dev/isthmus/internal/xds"
)

// Render shows offline what the control plane would send to a proxy, for a folder of configuration and the workloads in
// registry. Without a proxy it shows the folder's findings. Peers are trusted by the roots in their MeshPeer; this
// mesh's own roots are unknown.
func Render(
	dir string, registry *snapshot.Registry, proxy string,
) ([]adminapi.ProxyResource, []finding.Finding, error) {
	cfg, err := file.LoadDir(dir, schema.New().Validate)
	if err != nil {
		return nil, nil, err
	}
	for i := range registry.Nodes {
		registry.Nodes[i].Builtin = envoy.BuiltinVersion() // agents are taken to be of this program
	}
	nothing := &snapshot.Snapshot{Config: &snapshot.Config{}}
	verdict := gate.Review(nothing, cfg.Objects.ChangeSince(nil), gate.Who{Source: snapshot.SourceFile})
	cfg = verdict.Admit(nothing.Config, cfg)
	snap := &snapshot.Snapshot{
		Time: time.Now(), Config: cfg, Registry: registry,
		Peers: map[string]snapshot.PeerState{},
	}
	for _, p := range snapshot.Of[*v1alpha1.MeshPeer](cfg) {
		snap.Peers[p.Name] = snapshot.PeerState{Roots: []byte(p.Spec.Bundle.Inline), BundleTime: snap.Time}
	}
	addresses := vip.TableOf(nil) // as assigned by a control plane with an empty state
	chosen, _ := addresses.Choose(cfg.Hosts(), snap.Time)
	snap.VIPs = addresses.With(chosen).InUse()
	compiled := compile.Next(nil, snap)
	mesh, findings := compiled.Mesh, compiled.Report()
	if mesh == nil || proxy == "" {
		return nil, findings, nil
	}
	v := view.For(mesh, proxy)
	if v == nil {
		return nil, findings, fmt.Errorf("no proxy %q: the agents' settings given name %s", proxy, nodeNames(registry))
	}
	rs, err := describe(v, mesh.Endpoints)
	return rs, findings, err
}

func nodeNames(r *snapshot.Registry) string {
	var names []string
	for _, n := range r.Nodes {
		names = append(names, n.Name)
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// describe lists what a proxy is sent, including endpoint sets, in the order of sending.
func describe(v *view.View, endpoints map[model.EndpointSet][]model.Endpoint) ([]adminapi.ProxyResource, error) {
	var out []adminapi.ProxyResource
	res := envoy.Build(v)
	for _, typ := range envoy.Types {
		rs := res.ByType[typ]
		if typ == envoy.EndpointType {
			for _, set := range res.Sets {
				rs = append(rs, envoy.EndpointsFor(v, set, endpoints))
			}
		}
		for _, r := range rs {
			d, err := Show(r)
			if err != nil {
				return nil, err
			}
			out = append(out, d)
		}
	}
	return out, nil
}

// Show converts a resource for display.
func Show(r *envoy.Resource) (adminapi.ProxyResource, error) {
	config, err := r.Config()
	if err != nil {
		return adminapi.ProxyResource{}, err
	}
	out := adminapi.ProxyResource{
		Type: xds.ShortType(r.Type), Name: r.Name, Version: r.Version, Bytes: len(r.Body), Config: config,
		Objects: []string{},
	}
	for _, ref := range r.Refs {
		out.Objects = append(out.Objects, string(ref))
	}
	return out, nil
}
