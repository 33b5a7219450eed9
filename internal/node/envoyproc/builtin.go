package envoyproc

import (
	"log/slog"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	extensionv3 "github.com/envoyproxy/go-control-plane/envoy/service/extension/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/internal/envoy"
)

// builtinParts returns the clusters and listeners that are the same for every Envoy, for its bootstrap.
func builtinParts() (clusters, listeners []any, err error) {
	for _, r := range envoy.Builtin() {
		config, err := r.Config()
		if err != nil {
			return nil, nil, err
		}
		switch r.Type {
		case envoy.ClusterType:
			clusters = append(clusters, config)
		case envoy.ListenerType:
			listeners = append(listeners, config)
		}
	}
	return clusters, listeners, nil
}

// BuiltinFilters answers Envoy when it asks for a filter that is the same for every Envoy (ECDS).
type BuiltinFilters struct {
	extensionv3.UnimplementedExtensionConfigDiscoveryServiceServer
	Log *slog.Logger
}

// StreamExtensionConfigs is the state-of-the-world variant, in which each filter has a stream of its own. Filters never
// change while an Envoy runs: one of another version has another name.
func (c *BuiltinFilters) StreamExtensionConfigs(
	stream extensionv3.ExtensionConfigDiscoveryService_StreamExtensionConfigsServer,
) error {
	for {
		r, err := stream.Recv()
		if err != nil {
			return err
		}
		if why := r.GetErrorDetail(); why != nil {
			c.Log.Error("Envoy refuses a built-in filter", "filters", r.GetResourceNames(), "reason", why.GetMessage())
		}
		if r.GetResponseNonce() != "" {
			continue // acknowledged, or refused: it would be no other
		}
		resp := &discoveryv3.DiscoveryResponse{
			VersionInfo: envoy.BuiltinVersion(), Nonce: envoy.BuiltinVersion(), TypeUrl: envoy.ExtensionType,
		}
		for _, name := range r.GetResourceNames() {
			f := envoy.BuiltinFilter(name)
			if f == nil {
				c.Log.Error("Envoy is told of a filter that this agent does not have: the control plane is of another version",
					"filter", name, "has", envoy.BuiltinVersion())
				return status.Errorf(codes.NotFound, "no filter %s here: the built-in parts are of version %s",
					name, envoy.BuiltinVersion())
			}
			resp.Resources = append(resp.Resources, f)
		}
		if err := stream.Send(resp); err != nil {
			return err
		}
	}
}
