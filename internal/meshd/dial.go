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

// dialGateway connects to one of this mesh's own gateways, as the control plane, asking for a name.
func (d *Daemon) dialGateway(ctx context.Context, sni string) (net.Conn, error) {
	var errs []error
	for _, n := range d.store.Snapshot().Registry.Nodes {
		if n.Role != snapshot.RoleGateway || n.Gateway == nil {
			continue
		}
		id, err := spiffe.Workload(d.authority.TrustDomain(), spiffe.SystemNamespace, n.Gateway.ServiceAccount)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		cfg := d.authority.ClientTLS(d.identity, id)
		cfg.ServerName = sni
		cfg.VerifyConnection = d.onlyNode(ctx, n.Name, cfg.VerifyConnection)
		for _, a := range n.Gateway.Inner() {
			addr := netip.AddrPortFrom(a, agentapi.FederationEgress).String()
			conn, err := (&tls.Dialer{Config: cfg}).DialContext(ctx, "tcp", addr)
			if err == nil {
				return conn, nil
			}
			errs = append(errs, fmt.Errorf("gateway %s at %s: %w", n.Name, addr, err))
		}
	}
	if len(errs) == 0 {
		return nil, errors.New("this mesh has no gateway yet: start one with 'isthmus gateway'")
	}
	return nil, errors.Join(errs...)
}
