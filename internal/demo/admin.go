package demo

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/internal/adminapi"
)

// admin calls a control plane's administration API over its Unix socket, like an administrator on that host.
type admin struct {
	mesh   string
	socket string
}

const adminTimeout = 15 * time.Second

// call makes one call on a new connection. The demo kills control planes, and a new connection does not wait for the
// backoff of a broken one.
func call[Req, Resp any](ctx context.Context, a admin, method string, req *Req) (*Resp, error) {
	conn, err := grpc.NewClient("unix://"+a.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	resp, err := adminapi.Call[Req, Resp](ctx, conn, method, req)
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %s", a.mesh, method, status.Convert(err).Message())
	}
	return resp, nil
}

func (a admin) status(ctx context.Context) (*adminapi.StatusResponse, error) {
	return call[adminapi.Empty, adminapi.StatusResponse](ctx, a, "Status", &adminapi.Empty{})
}

func (a admin) token(ctx context.Context, r adminapi.TokenRequest) (string, error) {
	resp, err := call[adminapi.TokenRequest, adminapi.TokenResponse](ctx, a, "CreateToken", &r)
	if err != nil {
		return "", err
	}
	return resp.Token, nil
}

// peer returns the state of the single peer of a demo mesh.
func (a admin) peer(ctx context.Context, name string) (adminapi.PeerStatus, error) {
	resp, err := call[adminapi.PeerRequest, adminapi.PeerListResponse](ctx, a, "PeerList",
		&adminapi.PeerRequest{Peer: name})
	if err != nil {
		return adminapi.PeerStatus{}, err
	}
	for _, p := range resp.Peers {
		if p.Name == name {
			return p, nil
		}
	}
	return adminapi.PeerStatus{}, fmt.Errorf("%s has no peer %s", a.mesh, name)
}

// certs returns the certificates in use, by SPIFFE ID.
func (a admin) certs(ctx context.Context) (map[string]adminapi.NodeCert, error) {
	resp, err := call[adminapi.Empty, adminapi.CertListResponse](ctx, a, "CertList", &adminapi.Empty{})
	if err != nil {
		return nil, err
	}
	byID := map[string]adminapi.NodeCert{}
	for _, c := range resp.Certs {
		if old, ok := byID[c.SPIFFEID]; !ok || c.NotBefore.After(old.NotBefore) {
			byID[c.SPIFFEID] = c
		}
	}
	return byID, nil
}
