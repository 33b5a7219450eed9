package admin

import (
	"context"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/federation"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
)

// PeerProbe sends a test request through both gateways.
func (a *Admin) PeerProbe(ctx context.Context, r *adminapi.PeerProbeRequest) (*adminapi.PeerProbeResponse, error) {
	p, err := a.now()
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(snapshot.Of[*v1alpha1.MeshPeer](p.Snapshot.Config),
		func(mp *v1alpha1.MeshPeer) bool { return mp.Name == r.Peer }) {
		return nil, status.Errorf(codes.NotFound, "there is no peer %q: isthmus peer list shows them", r.Peer)
	}
	var t federation.Target
	if r.Import != "" {
		if t, err = target(p.Mesh, r); err != nil {
			return nil, err
		}
	}
	resp, err := a.Federation.Probe(ctx, r.Peer, t)
	return resp, invalid(err)
}

// target returns the export behind an import.
func target(mesh *model.Mesh, r *adminapi.PeerProbeRequest) (federation.Target, error) {
	for _, i := range mesh.Imports {
		if i.Name != r.Import {
			continue
		}
		for _, rem := range i.Remotes {
			if rem.Peer.Name == r.Peer {
				return federation.Target{Import: i.Name, SNI: rem.SNI, HTTP: i.Protocol.IsHTTP()}, nil
			}
		}
		return federation.Target{}, status.Errorf(codes.NotFound,
			"import %s takes nothing from peer %q now: isthmus imports shows from whom", r.Import, r.Peer)
	}
	return federation.Target{}, status.Errorf(codes.NotFound,
		"there is no FederatedImport %q: isthmus imports lists them", r.Import)
}
