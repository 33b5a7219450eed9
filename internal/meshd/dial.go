package meshd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/ca"
	"isthmus.dev/isthmus/internal/federation"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/spiffe"
)

// onlyNode adds to what a server has to prove: that its certificate is one that a node got since it last joined, and
// was not revoked. Gateways may share a service account, so that of another one is not enough.
func (d *Daemon) onlyNode(
	ctx context.Context, node string, verify func(tls.ConnectionState) error,
) func(tls.ConnectionState) error {
	return func(s tls.ConnectionState) error {
		if err := verify(s); err != nil {
			return err
		}
		_, err := d.agents.standings.node(ctx, node, ca.Generation(s.PeerCertificates[0]))
		return err
	}
}

// gateways are this mesh's own, as the control plane reaches them.
func (d *Daemon) gateways() []federation.Gateway {
	var out []federation.Gateway
	for _, n := range d.store.Snapshot().Registry.Nodes {
		if n.Role == snapshot.RoleGateway && n.Gateway != nil {
			out = append(out, federation.Gateway{Name: n.Name, Dial: func(ctx context.Context, sni string) (net.Conn, error) {
				return d.dialGateway(ctx, n, sni)
			}})
		}
	}
	return out
}

// dialGateway connects to a gateway, as the control plane, asking for a name.
func (d *Daemon) dialGateway(ctx context.Context, n snapshot.Node, sni string) (net.Conn, error) {
	id, err := spiffe.Workload(d.authority.TrustDomain(), spiffe.SystemNamespace, n.Gateway.ServiceAccount)
	if err != nil {
		return nil, err
	}
	cfg := d.authority.ClientTLS(d.identity, id)
	cfg.ServerName = sni
	cfg.VerifyConnection = d.onlyNode(ctx, n.Name, cfg.VerifyConnection)
	var errs []error
	for _, a := range n.Gateway.Inner() {
		addr := netip.AddrPortFrom(a, agentapi.FederationEgress).String()
		conn, err := (&tls.Dialer{Config: cfg}).DialContext(ctx, "tcp", addr)
		if err == nil {
			return conn, nil
		}
		errs = append(errs, fmt.Errorf("at %s: %w", addr, err))
	}
	return nil, errors.Join(errs...)
}
