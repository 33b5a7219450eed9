// Package stories shows what configuration means. Each file in testdata is one case: the YAML that goes in, and the
// output of every layer as reviewed by a person. Run the test with -update to rewrite the output.
package stories

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/tools/txtar"
	"sigs.k8s.io/yaml"

	"isthmus.dev/isthmus/internal/compile"
	"isthmus.dev/isthmus/internal/envoy"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/schema"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/source/file"
	"isthmus.dev/isthmus/internal/view"
)

// Story is one case.
type Story struct {
	Archive  *txtar.Archive
	Snapshot *snapshot.Snapshot

	options options
	phrases *phrases
}

// world is the section "world.yaml": inputs other than configuration.
type world struct {
	Time    time.Time                     `json:"time"`
	Nodes   []snapshot.Node               `json:"nodes"`
	Work    []snapshot.Workload           `json:"workloads"`
	Peers   map[string]snapshot.PeerState `json:"peers"`
	Invites []snapshot.Invite             `json:"invites"`
	Boots   []snapshot.Bootstrap          `json:"bootstraps"`
}

// Read parses a story's archive: sections in.yaml (and in-….yaml for further files), world.yaml and options. dir holds
// what stories share.
func Read(dir string, a *txtar.Archive) (*Story, error) {
	var w world
	if err := yaml.UnmarshalStrict(section(a, "world.yaml"), &w); err != nil {
		return nil, fmt.Errorf("read world.yaml: %w", err)
	}
	s := &Story{Archive: a}
	if err := yaml.UnmarshalStrict(section(a, "options"), &s.options); err != nil {
		return nil, fmt.Errorf("read options: %w", err)
	}
	var err error
	if s.phrases, err = readPhrases(dir); err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for _, f := range a.Files {
		if !strings.HasPrefix(f.Name, "in") {
			continue
		}
		var err error
		if files[f.Name], err = s.phrases.withRoots(dir, f.Data); err != nil {
			return nil, err
		}
	}
	cfg, err := config(files)
	if err != nil {
		return nil, err
	}
	roots, err := os.ReadFile(filepath.Join(dir, "roots", "own.pem"))
	if err != nil {
		return nil, err
	}
	for i, n := range w.Nodes {
		w.Nodes[i].Builtin = cmp.Or(n.Builtin, envoy.BuiltinVersion())
	}
	s.Snapshot = &snapshot.Snapshot{
		Time: w.Time, Config: cfg, Registry: &snapshot.Registry{Nodes: w.Nodes, Workloads: w.Work}, Peers: w.Peers,
		Invites: w.Invites, Bootstraps: w.Boots, Roots: roots, VIPs: map[string]netip.Addr{},
		PeeringAddresses: []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:15013")},
	}
	hosts := map[string]bool{}
	for _, h := range cfg.Hosts() {
		hosts[h.Name] = true
	}
	for n, h := range slices.Sorted(maps.Keys(hosts)) {
		s.Snapshot.VIPs[h] = netip.AddrFrom4([4]byte{240, 240, 1, byte(n + 1)})
	}
	return s, nil
}

// config reads the YAML as the control plane reads a folder.
func config(files map[string][]byte) (*snapshot.Config, error) {
	dir, err := os.MkdirTemp("", "isthmus-story-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			return nil, err
		}
	}
	cfg, err := file.LoadDir(dir, schema.New().Validate)
	if err != nil {
		return nil, err
	}
	cfg.Objects = renamed(cfg.Objects)
	for i := range cfg.Closed {
		cfg.Closed[i].Origin.File = filepath.Base(cfg.Closed[i].Origin.File)
	}
	for i := range cfg.Findings {
		cfg.Findings[i].File = filepath.Base(cfg.Findings[i].File)
	}
	return cfg, nil
}

// Outcome returns the output of the pure layers, by section name.
func (s *Story) Outcome() (map[string]string, error) {
	compiled := compile.Next(nil, s.Snapshot)
	mesh, out := compiled.Mesh, map[string]string{"findings": lines(compiled.Report())}
	if mesh == nil {
		return out, nil
	}
	out["model"] = Sketch(mesh)
	for _, n := range s.Snapshot.Registry.Nodes {
		for typ, rs := range Resources(mesh, n.Name) {
			text, err := s.spell(n.Name, stem(typ), rs)
			if err != nil {
				return nil, err
			}
			if text != "" {
				out["xds/"+n.Name+"/"+stem(typ)+".yaml"] = text
			}
		}
	}
	return out, nil
}

// Resources returns everything that one proxy is sent, by type, including endpoint sets.
func Resources(mesh *model.Mesh, proxy string) map[string][]*envoy.Resource {
	v := view.For(mesh, proxy)
	if v == nil {
		return nil
	}
	res := envoy.Build(v)
	out := maps.Clone(res.ByType)
	for _, set := range res.Sets {
		out[envoy.EndpointType] = append(out[envoy.EndpointType], envoy.EndpointsFor(v, set, mesh.Endpoints))
	}
	return out
}

func stem(typ string) string {
	name := typ[strings.LastIndexByte(typ, '.')+1:]
	return strings.ToLower(name)
}

func lines(fs []finding.Finding) string {
	var b strings.Builder
	for _, f := range fs {
		b.WriteString(f.String() + "\n")
	}
	return b.String()
}

// spell writes resources in the form of Envoy's configuration files.
func (s *Story) spell(proxy, typ string, rs []*envoy.Resource) (string, error) {
	var b strings.Builder
	for _, r := range rs {
		if !s.options.shows(proxy, typ, strings.TrimSuffix(r.Name, "@"+envoy.BuiltinVersion())) {
			continue
		}
		m, err := r.Config()
		if err != nil {
			return "", err
		}
		s.options.cut(m)
		if !s.options.Whole {
			s.phrases.brief(m)
		}
		text, err := yaml.Marshal(m)
		if err != nil {
			return "", err
		}
		b.WriteString("---\n")
		if len(r.Refs) > 0 {
			fmt.Fprintf(&b, "# from %s\n", join(r.Refs))
		}
		b.Write(bytes.ReplaceAll(text, []byte("@"+envoy.BuiltinVersion()), nil))
	}
	return b.String(), nil
}

func join(refs []model.Ref) string {
	var s []string
	for _, r := range refs {
		s = append(s, string(r))
	}
	return strings.Join(s, ", ")
}

func section(a *txtar.Archive, name string) []byte {
	for _, f := range a.Files {
		if f.Name == name {
			return f.Data
		}
	}
	return nil
}
