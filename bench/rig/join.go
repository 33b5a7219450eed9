package rig

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"isthmus.dev/isthmus/bench/genmesh"
	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/spiffe"
)

// Join makes a join token for one node and trades it for a TLS configuration with the node's certificate.
func Join(ctx context.Context, admin grpc.ClientConnInterface, address string, proxy int) (*tls.Config, error) {
	node := NodeName(proxy)
	tok, err := adminapi.Call[adminapi.TokenRequest, adminapi.TokenResponse](ctx, admin, "CreateToken", &adminapi.TokenRequest{
		Node: node, Role: snapshot.RoleNode, TTL: 10 * time.Minute,
		Identities: []string{genmesh.CallersNamespace + "/" + genmesh.CallerAccount(proxy)},
	})
	if err != nil {
		return nil, fmt.Errorf("create a join token for %s: %w", node, err)
	}
	fingerprint, err := tokenFingerprint(tok.Token)
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fmt.Errorf("make a certificate request: %w", err)
	}
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(credentials.NewTLS(pinned(fingerprint))))
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

// tokenFingerprint is the SHA-256 of the root that a join token pins.
func tokenFingerprint(token string) ([]byte, error) {
	payload, ok := strings.CutPrefix(token, "isthmus-join-v1.")
	if !ok {
		return nil, errors.New("the join token is of an unknown form")
	}
	text, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(payload, "="))
	if err != nil {
		return nil, fmt.Errorf("decode the join token: %w", err)
	}
	var body struct {
		Fingerprint string `json:"fingerprint"`
	}
	if err := json.Unmarshal(text, &body); err != nil {
		return nil, fmt.Errorf("decode the join token: %w", err)
	}
	sum, err := hex.DecodeString(strings.ReplaceAll(strings.TrimPrefix(body.Fingerprint, "sha256:"), ":", ""))
	if err != nil || len(sum) != sha256.Size {
		return nil, errors.New("the join token's fingerprint is not a SHA-256")
	}
	return sum, nil
}

// pinned trusts the server whose chain ends in the root with this fingerprint, before anything else is known of it.
func pinned(fingerprint []byte) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, // the name proves nothing yet; VerifyConnection pins the root instead
		VerifyConnection: func(cs tls.ConnectionState) error {
			roots, between := x509.NewCertPool(), x509.NewCertPool()
			found := false
			for _, cert := range cs.PeerCertificates[1:] {
				if sum := sha256.Sum256(cert.Raw); string(sum[:]) == string(fingerprint) {
					roots.AddCert(cert)
					found = true
				} else {
					between.AddCert(cert)
				}
			}
			if !found {
				return errors.New("the server's chain does not contain the root that the join token pins")
			}
			_, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between})
			return err
		},
	}
}

// nodeTLS is how a node that was attested speaks to its control plane.
func nodeTLS(resp *agentapi.AttestResponse, key *ecdsa.PrivateKey) (*tls.Config, error) {
	td, err := spiffe.ParseTrustDomain(genmesh.TrustDomain)
	if err != nil {
		return nil, fmt.Errorf("name the trust domain: %w", err)
	}
	svid := &x509svid.SVID{PrivateKey: key}
	for _, der := range resp.Chain {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("read the node certificate: %w", err)
		}
		svid.Certificates = append(svid.Certificates, cert)
	}
	bundle, err := x509bundle.Parse(td, resp.Roots)
	if err != nil {
		return nil, fmt.Errorf("read the roots: %w", err)
	}
	cfg := tlsconfig.MTLSClientConfig(svid, bundle, tlsconfig.AuthorizeID(spiffe.Control(td)))
	cfg.MinVersion = tls.VersionTLS13
	return cfg, nil
}

// Converse is the agent's own stream: it registers the proxy's workload and listens until the stream or ctx ends.
func Converse(ctx context.Context, conn grpc.ClientConnInterface, proxy int) error {
	stream, err := agentapi.Client{Conn: conn}.Sync(ctx)
	if err != nil {
		return err
	}
	if err := stream.Send(&agentapi.Report{
		Version:   "bench",
		Workloads: []snapshot.Workload{genmesh.Workload(proxy)},
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
