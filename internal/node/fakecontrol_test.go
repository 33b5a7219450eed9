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
	"maps"
	"math/big"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
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
	refusable bool // Envoy may refuse what it is sent
	streams   int  // delta-ADS streams opened so far
	known     int  // how many of them told the versions they have
	resources []fakeResource
	changed   chan struct{} // closed and replaced when resources are
	tell      agentapi.Instructions
	// make makes the resources for workloads that the agent reports, by their namespaces.
	make func(netns map[string]string) []fakeResource
}

// fakeResource is for the proxy of one workload, or for all.
type fakeResource struct {
	workload, name, version string
	body                    *anypb.Any
}

func newFakeControl(t *testing.T, node string) *fakeControl {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	f := &fakeControl{
		t: t, rootKey: key, ttl: time.Hour, node: node, role: snapshot.RoleNode, signed: map[string]int{},
		changed: make(chan struct{}),
		tell:    agentapi.Instructions{TrustDomain: trustDomain},
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
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		URIs:        []*url.URL{{Scheme: "spiffe", Host: trustDomain, Path: path}},
	}, f.root, public, f.rootKey)
	must(f.t, err)
	return der
}

func (f *fakeControl) rootPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.root.Raw})
}

func (f *fakeControl) token() string {
	fp := sha256.Sum256(f.root.Raw)
	body, err := json.Marshal(map[string]any{
		"id": "00000000000000aa", "secret": strings.Repeat("A", 43), "fingerprint": hex.EncodeToString(fp[:]),
		"addresses": []string{f.address},
	})
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

// Try asks for no trial.
func (f *fakeControl) Try(s rpc.Stream[agentapi.Trial, agentapi.Verdict]) error {
	<-s.Context().Done()
	return nil
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
		// they serve nobody
		r.Workloads = slices.DeleteFunc(r.Workloads, func(w snapshot.Workload) bool { return w.Away })
		f.mu.Lock()
		f.reports = append(f.reports, *r)
		if f.make != nil {
			netns := map[string]string{}
			for _, w := range r.Workloads {
				netns[w.Namespace+"/"+w.Name] = w.Netns
			}
			f.resources = f.make(netns)
			close(f.changed)
			f.changed = make(chan struct{})
		}
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

// fakeADS sends everything to whoever subscribes, unless it says that it has it, and what changes later.
type fakeADS struct {
	discovery.UnimplementedAggregatedDiscoveryServiceServer
	f *fakeControl
}

var fakeTypes = []string{
	"type.googleapis.com/envoy.config.cluster.v3.Cluster",
	"type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
	"type.googleapis.com/envoy.config.listener.v3.Listener",
}

func (a *fakeADS) DeltaAggregatedResources(
	s discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesServer,
) error {
	if caller(s.Context()) != "/isthmus/node/"+a.f.node {
		return status.Error(codes.Unauthenticated, "who are you")
	}
	md, _ := metadata.FromIncomingContext(s.Context())
	proxy := strings.Join(md.Get("isthmus-workload"), ",")
	a.f.mu.Lock()
	a.f.streams++
	a.f.mu.Unlock()
	requests := make(chan *discovery.DeltaDiscoveryRequest)
	go func() {
		defer close(requests)
		for {
			r, err := s.Recv()
			if err != nil {
				return
			}
			requests <- r
		}
	}()
	sent := map[string]map[string]string{} // version by name, by type that is subscribed to
	for {
		a.f.mu.Lock()
		changed := a.f.changed
		a.f.mu.Unlock()
		select {
		case <-s.Context().Done():
			for range requests {
			}
			return s.Context().Err()
		case r, ok := <-requests:
			if !ok {
				return nil
			}
			a.f.mu.Lock()
			if msg := r.GetErrorDetail().GetMessage(); msg != "" && !a.f.refusable {
				a.f.t.Errorf("Envoy refuses %s: %s", r.TypeUrl, msg)
			}
			a.f.mu.Unlock()
			if sent[r.TypeUrl] == nil {
				sent[r.TypeUrl] = map[string]string{}
				a.f.mu.Lock()
				if len(r.InitialResourceVersions) > 0 {
					a.f.known++
				}
				a.f.mu.Unlock()
				maps.Copy(sent[r.TypeUrl], r.InitialResourceVersions)
			}
			for _, name := range r.ResourceNamesSubscribe {
				if _, old := r.InitialResourceVersions[name]; !old {
					delete(sent[r.TypeUrl], name)
				}
			}
		case <-changed:
		}
		if err := a.push(s, proxy, sent); err != nil {
			return err
		}
	}
}

// push sends what differs: what is new from the clusters up, what is gone from the listeners down.
func (a *fakeADS) push(
	s discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesServer, proxy string,
	sent map[string]map[string]string,
) error {
	a.f.mu.Lock()
	all := a.f.resources
	a.f.mu.Unlock()
	current := map[string]map[string]bool{}
	for _, t := range fakeTypes {
		resp := &discovery.DeltaDiscoveryResponse{TypeUrl: t, Nonce: time.Now().String()}
		current[t] = map[string]bool{}
		for _, r := range all {
			if r.body.TypeUrl != t || proxy != "" && r.workload != "" && r.workload != proxy {
				continue
			}
			current[t][r.name] = true
			if sent[t] != nil && sent[t][r.name] != r.version {
				resp.Resources = append(resp.Resources,
					&discovery.Resource{Name: r.name, Version: r.version, Resource: r.body})
				sent[t][r.name] = r.version
			}
		}
		if len(resp.Resources) == 0 && (sent[t] == nil || sent[t][""] != "") {
			continue
		}
		sent[t][""] = "greeted" // the first answer may be empty, and must come
		if err := s.Send(resp); err != nil {
			return err
		}
	}
	for _, t := range slices.Backward(fakeTypes) {
		resp := &discovery.DeltaDiscoveryResponse{TypeUrl: t, Nonce: time.Now().String()}
		for name := range sent[t] {
			if name != "" && !current[t][name] {
				resp.RemovedResources = append(resp.RemovedResources, name)
				delete(sent[t], name)
			}
		}
		if len(resp.RemovedResources) == 0 {
			continue
		}
		if err := s.Send(resp); err != nil {
			return err
		}
	}
	return nil
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
