package envoy_test

import (
	"testing"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/compile"
	"isthmus.dev/isthmus/internal/envoy"
	"isthmus.dev/isthmus/internal/view"
)

// Envoy refuses a listener of which one chain leads to a cluster that is not there, and with it all its chains.
func TestEveryChainLeadsSomewhere(t *testing.T) {
	gateways, without := 0, 0
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
			there, asked := map[string]bool{agentapi.ADSCluster: true}, map[string]string{}
			for typ, list := range envoy.Build(view.For(mesh, n.Name)).ByType {
				for _, r := range list {
					config, err := r.Config()
					if err != nil {
						t.Fatal(err)
					}
					if typ == envoy.ClusterType {
						there[r.Name] = true
					}
					clustersIn(config, func(name string) { asked[name] = r.Name })
				}
			}
			for name, by := range asked {
				if !there[name] {
					t.Errorf("seed %d: %s of proxy %s leads to the cluster %q, which is not there", seed, by, n.Name, name)
				}
			}
		}
	}
	if gateways < 30 || without < 5 {
		t.Errorf("%d gateways, %d of them without a way to the control plane: the test proves too little", gateways, without)
	}
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
