package rig

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"isthmus.dev/isthmus/bench/genmesh"
	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/ca"
	"isthmus.dev/isthmus/internal/envoy"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/spiffe"
)

// Join makes a join token for one node and trades it for a TLS configuration with the node's certificate.
func Join(ctx context.Context, admin grpc.ClientConnInterface, address string, proxy int) (*tls.Config, error) {
	node := NodeName(proxy)
	tok, err := adminapi.Call[adminapi.TokenRequest, adminapi.TokenResponse](ctx, admin, "CreateToken",
		&adminapi.TokenRequest{
			Node: node, Role: snapshot.RoleNode, TTL: 10 * time.Minute,
			Identities: []string{genmesh.CallersNamespace + "/*"},
		})
	if err != nil {
		return nil, fmt.Errorf("create a join token for %s: %w", node, err)
	}
	token, err := ca.ParseToken(tok.Token)
	if err != nil {
		return nil, fmt.Errorf("read the join token of %s: %w", node, err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fmt.Errorf("make a certificate request: %w", err)
	}
	conn, err := grpc.NewClient(address,
		grpc.WithTransportCredentials(credentials.NewTLS(ca.PinnedTLS(token.Fingerprint, nil))))
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", address, err)
	}
	defer conn.Close()
	resp, err := agentapi.Client{Conn: conn}.Attest(ctx, &agentapi.AttestRequest{Token: tok.Token, CSR: csr})
	if err != nil {
		return nil, fmt.Errorf("attest %s: %w", node, err)
	}
	return nodeTLS(resp, key)
}

// NodeName is the name of a proxy's node.
func NodeName(proxy int) string { return fmt.Sprintf("node-%04d", proxy) }

// nodeTLS is how a node that was attested speaks to its control plane.
func nodeTLS(resp *agentapi.AttestResponse, key *ecdsa.PrivateKey) (*tls.Config, error) {
	td, err := spiffe.ParseTrustDomain(genmesh.TrustDomain)
	if err != nil {
		return nil, fmt.Errorf("name the trust domain: %w", err)
	}
	own := &tls.Certificate{Certificate: resp.Chain, PrivateKey: key}
	return ca.Client{
		Roots:       func() []byte { return resp.Roots },
		Certificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return own, nil },
		Expect:      []spiffe.ID{spiffe.Control(td)},
	}.TLS(), nil
}

// RunAgentStream is the agent's own stream: it registers workloads and listens until the stream or ctx ends.
func RunAgentStream(ctx context.Context, conn grpc.ClientConnInterface, workloads ...snapshot.Workload) error {
	stream, err := agentapi.Client{Conn: conn}.Sync(ctx)
	if err != nil {
		return err
	}
	if err := stream.Send(&agentapi.Report{
		Version:   "bench",
		Builtin:   envoy.BuiltinVersion(),
		Workloads: workloads,
		Envoy:     agentapi.EnvoyState{Running: true, Version: "1.40.0"},
	}); err != nil {
		return err
	}
	for {
		if _, err := stream.Recv(); err != nil {
			return err
		}
	}
}
