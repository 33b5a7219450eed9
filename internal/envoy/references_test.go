package envoy_test

import (
	"bytes"
	"strings"
	"testing"

	"isthmus.dev/isthmus/internal/compile"
	"isthmus.dev/isthmus/internal/envoy"
	"isthmus.dev/isthmus/internal/view"
	"isthmus.dev/isthmus/internal/wellknown"
)

// Envoy refuses a listener of which one chain leads to a cluster that is not there, and with it all its chains.
func TestEveryChainLeadsSomewhere(t *testing.T) {
	gateways, without, byChain := 0, 0, 0
	for seed := range uint64(60) {
		snap := newWorld(t, seed).snapshot()
		mesh, _ := compile.Mesh(snap)
		for _, n := range snap.Registry.Nodes {
			if n.Gateway != nil {
				gateways++
				if len(snap.ControlOf(n)) == 0 {
					without++
				}
			}
			there, asked := map[string]bool{wellknown.ADSCluster: true}, map[string]string{}
			res := envoy.Build(view.For(mesh, n.Name))
			shared := map[string]*envoy.Resource{} // filters
			for _, r := range append(res.ByType[envoy.ExtensionType], builtinParts(n.Builtin)...) {
				switch r.Type {
				case envoy.ExtensionType:
					shared[r.Name] = r
				case envoy.ClusterType:
					there[r.Name] = true
				}
			}
			for typ, list := range res.ByType {
				for _, r := range list {
					config, err := r.Config()
					if err != nil {
						t.Fatal(err)
					}
					if typ == envoy.ClusterType {
						there[r.Name] = true
					}
					clustersIn(config, func(name string) { asked[name] = r.Name })
					chains, _ := config["filter_chains"].([]any)
					if c := config["default_filter_chain"]; c != nil {
						chains = append(chains, c)
					}
					for _, c := range chains {
						for _, f := range c.(map[string]any)["filters"].([]any) {
							f := f.(map[string]any)
							if f["config_discovery"] == nil {
								continue
							}
							byChain++
							filter, known := shared[f["name"].(string)]
							if !known {
								t.Errorf("seed %d: %s asks for %s, which is not there", seed, r.Name, f["name"])
								continue
							}
							if named, err := filter.Config(); err != nil {
								t.Fatal(err)
							} else {
								clustersIn(named, func(name string) { asked[name] = filter.Name })
							}
							if !bytes.Contains(filter.Body, []byte("isthmus-cluster")) {
								continue
							}
							chain := c.(map[string]any)["name"].(string)
							name := strings.TrimPrefix(r.Name, wellknown.OutboundListener) + ">" + chain
							asked[name] = r.Name
							if bytes.Contains(filter.Body, []byte("%FILTER_CHAIN_NAME%/grpc")) {
								asked[name+"/grpc"] = r.Name
							}
						}
					}
				}
			}
			for name, by := range asked {
				if !there[name] {
					t.Errorf(
						"seed %d: %s of proxy %s leads to the cluster %q, which is not there",
						seed,
						by,
						n.Name,
						name,
					)
				}
			}
		}
	}
	if gateways < 30 || without < 5 || byChain < 100 {
		t.Errorf(
			"%d gateways, %d of them without a way to the control plane, %d chains with a shared manager: "+
				"the test proves too little",
			gateways,
			without,
			byChain,
		)
	}
}

// builtinParts are those that a proxy has from its agent.
func builtinParts(version string) []*envoy.Resource {
	if version != envoy.BuiltinVersion() {
		return nil
	}
	return envoy.Builtin()
}

// clustersIn finds the clusters that a configuration leads to.
func clustersIn(v any, found func(string)) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			clustersIn(e, found)
		}
	case map[string]any:
		for key, e := range v {
			name, text := e.(string)
			if text && (key == "cluster" || key == "cluster_name") {
				found(name)
			}
			if list, ok := e.([]any); ok && key == "clusters" {
				for _, c := range list {
					if name, ok := c.(string); ok {
						found(name)
					} else if c, ok := c.(map[string]any); ok {
						found(c["name"].(string))
					}
				}
			}
			clustersIn(e, found)
		}
	}
}
