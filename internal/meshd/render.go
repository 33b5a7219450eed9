package meshd

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/compile"
	"isthmus.dev/isthmus/internal/envoy"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/schema"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/source/file"
	"isthmus.dev/isthmus/internal/state"
	"isthmus.dev/isthmus/internal/view"
)

// Render says offline what the control plane would send a proxy: the same spine on a folder of configuration and the
// workloads in registry. Peers are trusted by what their MeshPeer holds inline; this mesh's own roots are not known.
func Render(ctx context.Context, dir string, registry *snapshot.Registry, proxy string) ([]adminapi.ProxyResource, []finding.Finding, error) {
	cfg, err := file.LoadDir(dir, schema.New().Validate)
	if err != nil {
		return nil, nil, err
	}
	snap := &snapshot.Snapshot{Time: time.Now(), Config: cfg, Registry: registry, Peers: map[string]snapshot.PeerState{}}
	for _, p := range cfg.MeshPeers {
		snap.Peers[p.Name] = snapshot.PeerState{Roots: []byte(p.Spec.Bundle.Inline), BundleTime: snap.Time}
	}
	mesh, findings := compile.Mesh(snap)
	if mesh == nil {
		return nil, slices.Concat(cfg.Findings, findings), nil
	}
	if snap.VIPs, err = freshVIPs(ctx, mesh, snap.Time); err != nil {
		return nil, nil, err
	}
	mesh, findings = compile.Mesh(snap)
	findings = slices.Concat(cfg.Findings, findings)
	finding.Sort(findings)
	v := view.For(mesh, proxy)
	if v == nil {
		return nil, findings, fmt.Errorf("no proxy %q: the agents' settings given name %s", proxy, nodeNames(registry))
	}
	rs, err := describe(envoy.Build(v), mesh.Endpoints)
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

// freshVIPs are the addresses that a control plane with an empty state file would give.
func freshVIPs(ctx context.Context, mesh *model.Mesh, now time.Time) (map[string]netip.Addr, error) {
	dir, err := os.MkdirTemp("", "isthmus-render-")
	if err != nil {
		return nil, fmt.Errorf("make a temporary folder: %w", err)
	}
	defer os.RemoveAll(dir)
	db, err := state.Open(ctx, filepath.Join(dir, "state.db"))
	if err != nil {
		return nil, err
	}
	defer db.Close()
	var hosts []string
	for _, s := range mesh.Services {
		hosts = append(hosts, s.Host)
	}
	return db.AllocateVIPs(ctx, netip.MustParsePrefix("240.240.0.0/16"), hosts, now)
}

// shortTypes name the resource types as people do.
var shortTypes = map[string]string{
	envoy.ClusterType: "CDS", envoy.EndpointType: "EDS", envoy.SecretType: "SDS", envoy.ListenerType: "LDS", envoy.RouteType: "RDS",
}

// describe tells what a proxy is sent, endpoint sets included, in the order in which Envoy learns it.
func describe(res *envoy.Resources, endpoints map[model.EndpointSet][]model.Endpoint) ([]adminapi.ProxyResource, error) {
	var out []adminapi.ProxyResource
	for _, typ := range envoy.Types {
		rs := res.ByType[typ]
		if typ == envoy.EndpointType {
			for _, set := range res.Sets {
				rs = append(rs, envoy.Endpoints(set, endpoints[set]))
			}
		}
		for _, r := range rs {
			d, err := describeOne(r)
			if err != nil {
				return nil, err
			}
			out = append(out, d)
		}
	}
	return out, nil
}

func describeOne(r *envoy.Resource) (adminapi.ProxyResource, error) {
	d := adminapi.ProxyResource{Type: shortTypes[r.Type], Name: r.Name, Version: r.Version, Bytes: len(r.Body)}
	for _, ref := range r.Refs {
		d.Objects = append(d.Objects, string(ref))
	}
	msg, err := (&anypb.Any{TypeUrl: r.Type, Value: r.Body}).UnmarshalNew()
	if err != nil {
		return d, fmt.Errorf("read %s %s: %w", d.Type, r.Name, err)
	}
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(msg)
	if err != nil {
		return d, fmt.Errorf("write %s %s: %w", d.Type, r.Name, err)
	}
	if err := json.Unmarshal(text, &d.Config); err != nil {
		return d, fmt.Errorf("write %s %s: %w", d.Type, r.Name, err)
	}
	return d, nil
}
