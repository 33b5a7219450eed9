package envoy

import (
	"fmt"
	"maps"
	"slices"
)

// Placeholder replaces every certificate that the agent would supply. PEM.
type Placeholder struct{ Chain, Key []byte }

// Static adds resources to a bootstrap, in Envoy's file format, so that `envoy --mode validate` checks all of them.
// Validation fetches nothing, so routes, endpoints and roots are inlined into the listeners and clusters that refer to
// them. It modifies the bootstrap.
func Static(bootstrap map[string]any, resources []*Resource, cert Placeholder) (map[string]any, error) {
	delete(bootstrap, "admin")
	if dynamic, ok := bootstrap["dynamic_resources"].(map[string]any); ok {
		delete(dynamic, "lds_config")
		delete(dynamic, "cds_config")
	}
	static, ok := bootstrap["static_resources"].(map[string]any)
	if !ok {
		static = map[string]any{}
		bootstrap["static_resources"] = static
	}
	clusters, _ := static["clusters"].([]any)
	listeners, _ := static["listeners"].([]any)
	s := &inliner{
		cert: cert, routes: map[string]any{}, secrets: map[string]any{}, shared: map[string]any{},
		asked: map[string]bool{},
	}
	for _, r := range slices.Concat(Builtin(), resources) {
		if r.Type != ExtensionType && isBuiltin(r) {
			continue // the bootstrap has it
		}
		config, err := r.Config()
		if err != nil {
			return nil, err
		}
		switch r.Type {
		case ClusterType:
			clusters = append(clusters, config)
		case EndpointType:
			clusters = append(clusters,
				map[string]any{"name": "endpoints/" + r.Name, "type": "STATIC", "load_assignment": config})
		case ListenerType:
			listeners = append(listeners, config)
		case RouteType:
			s.routes[r.Name] = config
		case SecretType:
			s.secrets[r.Name] = config
		case ExtensionType:
			s.shared[r.Name] = config["typed_config"]
		}
	}
	roots := maps.Clone(s.secrets)
	static["clusters"], static["listeners"] = s.inline(clusters), s.inline(listeners)
	maps.Copy(s.secrets, roots) // secrets that are not among the resources are certificates
	static["secrets"] = slices.Collect(maps.Values(s.secrets))
	for name := range s.routes {
		if !s.asked[name] {
			return nil, fmt.Errorf("no listener asks for the routes %s", name)
		}
	}
	return bootstrap, s.err
}

// inliner replaces references by the resources.
type inliner struct {
	cert            Placeholder
	routes, secrets map[string]any
	shared          map[string]any  // filters
	asked           map[string]bool // routes
	err             error
}

func (s *inliner) inline(v any) any {
	switch v := v.(type) {
	case []any:
		for i := range v {
			v[i] = s.inline(v[i])
		}
	case map[string]any:
		if rds, ok := v["rds"].(map[string]any); ok {
			s.inlineRoutes(v, rds)
		}
		if _, ok := v["config_discovery"]; ok {
			name, _ := v["name"].(string)
			if s.shared[name] == nil {
				s.err = fmt.Errorf("a chain asks for the filter %s, which nobody has", name)
				return v
			}
			delete(v, "config_discovery")
			v["typed_config"] = s.shared[name]
		}
		if _, ok := v["sds_config"]; ok {
			name, _ := v["name"].(string)
			delete(v, "sds_config")
			s.secrets[name] = map[string]any{"name": name, "tls_certificate": map[string]any{
				"certificate_chain": map[string]any{"inline_string": string(s.cert.Chain)},
				"private_key":       map[string]any{"inline_string": string(s.cert.Key)},
			}}
		}
		for k := range v {
			v[k] = s.inline(v[k])
		}
	}
	return v
}

func (s *inliner) inlineRoutes(v, rds map[string]any) {
	name, _ := rds["route_config_name"].(string)
	if s.routes[name] == nil {
		s.err = fmt.Errorf("a listener asks for the routes %s, which nobody has", name)
		return
	}
	delete(v, "rds")
	v["route_config"] = s.routes[name]
	s.asked[name] = true
}
