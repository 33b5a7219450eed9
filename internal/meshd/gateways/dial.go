package gateways

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"isthmus.dev/isthmus/internal/ca"
	"isthmus.dev/isthmus/internal/federation"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/wellknown"
)

// Dialer connects to this mesh's own gateways as the control plane.
type Dialer struct {
	Authority *ca.Authority
	Identity  *ca.Source // the control plane's
	Snapshot  func() *snapshot.Snapshot
	// Node returns an error if a certificate's generation is not the node's current one.
	Node func(ctx context.Context, name, generation string) error
}

// OnlyNode adds a check to a server's verification: its certificate must belong to the node's current generation.
// Gateways may share a service account, so the identity alone does not suffice.
func (d Dialer) OnlyNode(
	ctx context.Context, node string, verify func(tls.ConnectionState) error,
) func(tls.ConnectionState) error {
	return func(s tls.ConnectionState) error {
		if err := verify(s); err != nil {
			return err
		}
		return d.Node(ctx, node, ca.Generation(s.PeerCertificates[0]))
	}
}

// Gateways returns this mesh's gateways as its control plane reaches them.
func (d Dialer) Gateways() []federation.Gateway {
	var out []federation.Gateway
	for _, n := range d.Snapshot().Registry.Nodes {
		if n.Role == snapshot.RoleGateway && n.Gateway != nil {
			out = append(out, federation.Gateway{
				Name: n.Name,
				Dial: func(ctx context.Context, sni string) (net.Conn, error) {
					return d.dial(ctx, n, sni)
				},
			})
		}
	}
	return out
}

// dial connects to a gateway with a server name.
func (d Dialer) dial(ctx context.Context, n snapshot.Node, sni string) (net.Conn, error) {
	id, err := spiffe.Workload(d.Authority.TrustDomain(), spiffe.SystemNamespace, n.Gateway.ServiceAccount)
	if err != nil {
		return nil, err
	}
	cfg := d.Authority.ClientTLS(d.Identity, id)
	cfg.ServerName = sni
	cfg.VerifyConnection = d.OnlyNode(ctx, n.Name, cfg.VerifyConnection)
	var errs []error
	for _, a := range n.Gateway.Inner() {
		addr := netip.AddrPortFrom(a, wellknown.FederationEgress).String()
		conn, err := (&tls.Dialer{Config: cfg}).DialContext(ctx, "tcp", addr)
		if err == nil {
			return conn, nil
		}
		errs = append(errs, fmt.Errorf("at %s: %w", addr, err))
	}
	return nil, errors.Join(errs...)
}
