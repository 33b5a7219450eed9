//go:build e2e

package node

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
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/rpc"
	"isthmus.dev/isthmus/internal/snapshot"
)

const trustDomain = "t.example"

// fakeControl is a control plane with a root, one token, and Envoy resources that a test sets.
type fakeControl struct {
	t       *testing.T
	root    *x509.Certificate
	rootKey *ecdsa.PrivateKey
	ttl     time.Duration
	address string
	node    string
	role    snapshot.Role

	mu        sync.Mutex // guards what follows
	server    *grpc.Server
	tokenUsed bool
	signed    map[string]int // certificates by SPIFFE ID
	reports   []agentapi.Report
	streams   int // delta-ADS streams opened so far
	known     int // how many of them told the versions they have
	resources map[string]map[string]*anypb.Any
	tell      agentapi.Instructions
}

func newFakeControl(t *testing.T, node string) *fakeControl {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	f := &fakeControl{
		t: t, rootKey: key, ttl: time.Hour, node: node, role: snapshot.RoleNode, signed: map[string]int{},
		resources: map[string]map[string]*anypb.Any{},
		tell:      agentapi.Instructions{TrustDomain: trustDomain},
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		URIs: []*url.URL{{Scheme: "spiffe", Host: trustDomain}},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	f.root, err = x509.ParseCertificate(der)
	must(t, err)
	f.start("127.0.0.1:0")
	t.Cleanup(f.stop)
	return f
}

func (f *fakeControl) start(address string) {
	f.t.Helper()
	l, err := net.Listen("tcp", address)
	must(f.t, err)
	f.address = l.Addr().String()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(f.t, err)
	leaf := f.sign("/isthmus/control", key.Public(), time.Hour)
	roots := x509.NewCertPool()
	roots.AddCert(f.root)
	s := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: roots,
		Certificates: []tls.Certificate{{Certificate: [][]byte{leaf, f.root.Raw}, PrivateKey: key}},
	})))
	s.RegisterService(&agentapi.Desc, f)
	discovery.RegisterAggregatedDiscoveryServiceServer(s, &fakeADS{f: f})
	f.mu.Lock()
	f.server = s
	f.mu.Unlock()
	go s.Serve(l)
}

func (f *fakeControl) stop() {
	f.mu.Lock()
	s := f.server
	f.mu.Unlock()
	s.Stop()
}

func (f *fakeControl) sign(path string, public any, ttl time.Duration) []byte {
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	must(f.t, err)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(ttl),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		URIs: []*url.URL{{Scheme: "spiffe", Host: trustDomain, Path: path}},
	}, f.root, public, f.rootKey)
	must(f.t, err)
	return der
}

func (f *fakeControl) rootPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.root.Raw})
}

func (f *fakeControl) token() string {
	fp := sha256.Sum256(f.root.Raw)
	body, err := json.Marshal(map[string]any{"id": "00000000000000aa", "secret": strings.Repeat("A", 43), "fingerprint": hex.EncodeToString(fp[:]), "addresses": []string{f.address}})
	must(f.t, err)
	return "isthmus-join-v1." + base64.RawURLEncoding.EncodeToString(body)
}

// caller is the path of the caller's SPIFFE ID.
func caller(ctx context.Context) string {
	p, _ := peer.FromContext(ctx)
	state := p.AuthInfo.(credentials.TLSInfo).State
	if len(state.PeerCertificates) == 0 {
		return ""
	}
	return state.PeerCertificates[0].URIs[0].Path
}

func (f *fakeControl) Attest(_ context.Context, r *agentapi.AttestRequest) (*agentapi.AttestResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.Token != f.token() || f.tokenUsed {
		return nil, status.Error(codes.PermissionDenied, "the token was used before")
	}
	f.tokenUsed = true
	csr, err := x509.ParseCertificateRequest(r.CSR)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, "bad CSR")
	}
	return &agentapi.AttestResponse{
		Node: f.node, Role: f.role, Roots: f.rootPEM(),
		Chain: [][]byte{f.sign("/isthmus/node/"+f.node, csr.PublicKey, f.ttl)},
	}, nil
}

func (f *fakeControl) Sign(ctx context.Context, r *agentapi.SignRequest) (*agentapi.SignResponse, error) {
	if caller(ctx) != "/isthmus/node/"+f.node {
		return nil, status.Error(codes.Unauthenticated, "who are you")
	}
	csr, err := x509.ParseCertificateRequest(r.CSR)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, "bad CSR")
	}
	path := "/isthmus/node/" + f.node
	if r.Namespace != "" {
		path = "/ns/" + r.Namespace + "/sa/" + r.ServiceAccount
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.signed[path]++
	return &agentapi.SignResponse{Chain: [][]byte{f.sign(path, csr.PublicKey, f.ttl)}, Roots: f.rootPEM()}, nil
}

func (f *fakeControl) Sync(s rpc.Stream[agentapi.Instructions, agentapi.Report]) error {
	if caller(s.Context()) != "/isthmus/node/"+f.node {
		return status.Error(codes.Unauthenticated, "who are you")
	}
	if err := s.Send(&f.tell); err != nil {
		return err
	}
	for {
		r, err := s.Recv()
		if err != nil {
			return err
		}
		f.mu.Lock()
		f.reports = append(f.reports, *r)
		f.mu.Unlock()
	}
}

func (f *fakeControl) lastReport() agentapi.Report {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.reports) == 0 {
		return agentapi.Report{}
	}
	return f.reports[len(f.reports)-1]
}

func (f *fakeControl) streamCount() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.streams
}

func (f *fakeControl) signedCount(path string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.signed[path]
}

// fakeADS sends everything of a type to whoever subscribes to it, unless it says that it has it.
type fakeADS struct {
	discovery.UnimplementedAggregatedDiscoveryServiceServer
	f *fakeControl
}

func (a *fakeADS) DeltaAggregatedResources(s discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	if caller(s.Context()) != "/isthmus/node/"+a.f.node {
		return status.Error(codes.Unauthenticated, "who are you")
	}
	a.f.mu.Lock()
	a.f.streams++
	a.f.mu.Unlock()
	answered := map[string]bool{}
	for {
		r, err := s.Recv()
		if err != nil {
			return err
		}
		if msg := r.GetErrorDetail().GetMessage(); msg != "" {
			a.f.t.Errorf("Envoy refuses %s: %s", r.TypeUrl, msg)
		}
		if answered[r.TypeUrl] && len(r.ResourceNamesSubscribe) == 0 {
			continue
		}
		answered[r.TypeUrl] = true
		resp := &discovery.DeltaDiscoveryResponse{TypeUrl: r.TypeUrl, Nonce: time.Now().String()}
		a.f.mu.Lock()
		if len(r.InitialResourceVersions) > 0 {
			a.f.known++
		}
		for name, any := range a.f.resources[r.TypeUrl] {
			if r.InitialResourceVersions[name] != "1" {
				resp.Resources = append(resp.Resources, &discovery.Resource{Name: name, Version: "1", Resource: any})
			}
		}
		a.f.mu.Unlock()
		if err := s.Send(resp); err != nil {
			return err
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
