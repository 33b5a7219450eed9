// Package limits divides Envoy's connections among its listeners, so that one workload, or a gateway's peers, cannot
// take the others'. Envoy asks for the shares as a runtime layer (RTDS), so that they change without a restart.
package limits

import (
	"fmt"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	runtime "github.com/envoyproxy/go-control-plane/envoy/service/runtime/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"isthmus.dev/isthmus/internal/wellknown"
)

const runtimeType = "type.googleapis.com/envoy.service.runtime.v3.Runtime"

// OfWorkloads divides connections among workloads, by "<namespace>/<name>": each has as many for its calls as for its
// callers. Few workloads share evenly. Of many, each may have an eighth in each direction, since hardly all need that
// much at once.
func OfWorkloads(connections uint32, workloads []string) map[string]uint32 {
	if len(workloads) == 0 {
		return nil
	}
	share := max(connections/8, connections/uint32(2*len(workloads)), 1)
	out := map[string]uint32{}
	for _, w := range workloads {
		out[wellknown.OutboundListener+w] = share
		out[wellknown.InboundListener+w] = share
	}
	return out
}

// OfGateway reserves a quarter for the mesh's own callers, whatever peers and strangers do.
func OfGateway(connections uint32) map[string]uint32 {
	return map[string]uint32{wellknown.IngressListener: max(connections-connections/4, 1)}
}

// Service is Envoy's runtime discovery service, which serves one layer.
type Service struct {
	runtime.UnimplementedRuntimeDiscoveryServiceServer
	Connections map[string]uint32 // by listener
}

// StreamRuntime returns the state-of-the-world variant, which the bootstrap asks for. Each new subscription is answered
// once.
func (s *Service) StreamRuntime(stream runtime.RuntimeDiscoveryService_StreamRuntimeServer) error {
	for {
		r, err := stream.Recv()
		if err != nil {
			return err
		}
		if r.GetResponseNonce() != "" {
			continue // acknowledged, or refused: it would be no other
		}
		resp, err := s.layer()
		if err != nil {
			return err
		}
		if err := stream.Send(resp); err != nil {
			return err
		}
	}
}

func (s *Service) layer() (*discovery.DiscoveryResponse, error) {
	fields := map[string]*structpb.Value{}
	for listener, n := range s.Connections {
		fields["envoy.resource_limits.listener."+listener+".connection_limit"] = structpb.NewNumberValue(float64(n))
	}
	body, err := anypb.New(&runtime.Runtime{Name: wellknown.LimitsLayer, Layer: &structpb.Struct{Fields: fields}})
	if err != nil {
		return nil, fmt.Errorf("encode runtime layer: %w", err)
	}
	return &discovery.DiscoveryResponse{
		VersionInfo: "1", Nonce: "1", TypeUrl: runtimeType, Resources: []*anypb.Any{body},
	}, nil
}
