package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/peer"

	"isthmus.dev/isthmus/bench/adsclient"
	"isthmus.dev/isthmus/bench/adstest"
	"isthmus.dev/isthmus/bench/proc"
	"isthmus.dev/isthmus/bench/rig"
	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/ca"
	"isthmus.dev/isthmus/internal/rpc"
	"isthmus.dev/isthmus/internal/waittest"
)

// fake is a control plane just real enough: it signs, it reads the generated files, it serves ADS.
type fake struct {
	ads     *adstest.Server
	dir     string
	gossips bool // tells every proxy of every change
	root    *x509.Certificate
	key     *ecdsa.PrivateKey
	admin   *grpc.ClientConn
	address string
	seen    map[string]string // file contents
	loaded  bool              // read once

	mu     sync.Mutex // guards tokens
	tokens []string   // nodes
}

func startFake(t *testing.T, dir string, gossips bool) *fake {
	t.Helper()
	f := &fake{dir: dir, gossips: gossips, seen: map[string]string{}}
	f.ads = adstest.New(func(ctx context.Context) string {
		p, _ := peer.FromContext(ctx)
		uri := p.AuthInfo.(credentials.TLSInfo).State.PeerCertificates[0].URIs[0]
		return strings.TrimPrefix(uri.Path, "/isthmus/node/")
	})
	f.root, f.key = f.certify(t, nil, nil)
	leaf, key := f.certify(t, nil, &url.URL{Scheme: "spiffe", Host: "bench.example", Path: "/isthmus/control"})
	pool := x509.NewCertPool()
	pool.AddCert(f.root)
	agents := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{leaf.Raw, f.root.Raw}, PrivateKey: key}},
		ClientAuth:   tls.VerifyClientCertIfGiven, ClientCAs: pool, MinVersion: tls.VersionTLS13,
	})))
	agents.RegisterService(&agentapi.Desc, fakeAgents{fake: f, t: t})
	discovery.RegisterAggregatedDiscoveryServiceServer(agents, f.ads)
	f.address = serve(t, agents)
	admin := grpc.NewServer()
	admin.RegisterService(&adminapi.Desc, fakeAdmin{fake: f})
	conn, err := grpc.NewClient(serve(t, admin), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	f.admin = conn
	f.readChanges(t)
	go func() {
		for t.Context().Err() == nil {
			waittest.Pace(2 * time.Millisecond)
			f.readChanges(t)
		}
	}()
	return f
}

func serve(t *testing.T, g *grpc.Server) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go g.Serve(l)
	t.Cleanup(g.Stop)
	return l.Addr().String()
}

// certify signs a certificate for an ID; the root when there is none.
func (f *fake) certify(t *testing.T, public crypto.PublicKey, id *url.URL) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	parent, signer := f.root, f.key
	switch {
	case id == nil:
		template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
		parent, signer = template, key
		id = &url.URL{Scheme: "spiffe", Host: "bench.example"}
	default:
		template.KeyUsage = x509.KeyUsageDigitalSignature
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	}
	if public == nil {
		public = key.Public()
	}
	template.URIs = []*url.URL{id}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

var (
	callerLine  = regexp.MustCompile(`/sa/caller-(\d+)`)
	addressLine = regexp.MustCompile(`address: (\S+)`)
)

// readChanges takes the files that changed and publishes what they say.
func (f *fake) readChanges(t *testing.T) {
	files, _ := filepath.Glob(filepath.Join(f.dir, "svc-*.yaml"))
	defer func() { f.loaded = true }()
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil || f.seen[file] == string(text) {
			continue
		}
		f.seen[file] = string(text)
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		load := &endpoint.ClusterLoadAssignment{ClusterName: name, Endpoints: []*endpoint.LocalityLbEndpoints{{}}}
		for _, a := range addressLine.FindAllStringSubmatch(string(text), -1) {
			load.Endpoints[0].LbEndpoints = append(load.Endpoints[0].LbEndpoints, lbEndpoint(a[1]))
		}
		for _, c := range callerLine.FindAllStringSubmatch(string(text), -1) {
			f.ads.Set("node-"+c[1], name, load, adsclient.EDS)
			f.ads.Set("node-"+c[1], name, &cluster.Cluster{
				Name: name, ClusterDiscoveryType: &cluster.Cluster_Type{Type: cluster.Cluster_EDS},
			}, adsclient.CDS)
		}
		if f.gossips && f.loaded {
			for p := range 4 {
				f.ads.Set(rig.NodeName(p), "gossip",
					&cluster.Cluster{Name: "gossip", AltStatName: fmt.Sprint(time.Now().UnixNano())}, adsclient.CDS)
			}
		}
	}
}

func lbEndpoint(ip string) *endpoint.LbEndpoint {
	return &endpoint.LbEndpoint{HostIdentifier: &endpoint.LbEndpoint_Endpoint{Endpoint: &endpoint.Endpoint{
		Address: &core.Address{Address: &core.Address_SocketAddress{SocketAddress: &core.SocketAddress{Address: ip}}},
	}}}
}

// WaitLoaded and Usage make the fake a subject.
func (f *fake) WaitLoaded(context.Context, int) error { return nil }
func (f *fake) Restart() error                        { return nil }
func (f *fake) Usage() (proc.Usage, error)            { return proc.Usage{RSS: 2048}, nil }

type fakeAdmin struct {
	adminapi.Server // the methods that the bench does not call
	fake            *fake
}

func (a fakeAdmin) CreateToken(_ context.Context, r *adminapi.TokenRequest) (*adminapi.TokenResponse, error) {
	sum := sha256.Sum256(a.fake.root.Raw)
	secret := base64.RawURLEncoding.EncodeToString(sum[:]) // any 32 bytes: the fake knows tokens by their ID
	body := fmt.Sprintf(`{"id":"%016x","secret":"%s","fingerprint":"%s","addresses":["x:1"]}`, a.fake.issue(r.Node),
		secret, hex.EncodeToString(sum[:]))
	return &adminapi.TokenResponse{Token: "isthmus-join-v1." + base64.RawURLEncoding.EncodeToString([]byte(body))}, nil
}

// issue makes a token's ID, redeem uses it up.
func (f *fake) issue(node string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tokens = append(f.tokens, node)
	return len(f.tokens) - 1
}

func (f *fake) redeem(id string) (node string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var n int
	if _, err := fmt.Sscanf(id, "%x", &n); err != nil || n >= len(f.tokens) {
		return ""
	}
	node, f.tokens[n] = f.tokens[n], ""
	return node
}

type fakeAgents struct {
	agentapi.Server // the methods that the bench does not call
	fake            *fake
	t               *testing.T
}

func (a fakeAgents) Attest(_ context.Context, r *agentapi.AttestRequest) (*agentapi.AttestResponse, error) {
	csr, err := x509.ParseCertificateRequest(r.CSR)
	if err != nil {
		return nil, err
	}
	token, err := ca.ParseToken(r.Token)
	if err != nil {
		return nil, err
	}
	node := a.fake.redeem(token.ID)
	if node == "" || csr.CheckSignature() != nil {
		return nil, errors.New("refused")
	}
	leaf, _ := a.fake.certify(a.t, csr.PublicKey,
		&url.URL{Scheme: "spiffe", Host: "bench.example", Path: "/isthmus/node/" + node})
	return &agentapi.AttestResponse{
		Chain: [][]byte{leaf.Raw}, Roots: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.fake.root.Raw}),
	}, nil
}

func (a fakeAgents) Sync(s rpc.Stream[agentapi.Instructions, agentapi.Report]) error {
	r, err := s.Recv()
	if err != nil {
		return err
	}
	if len(r.Workloads) != 1 || !r.Workloads[0].Ready {
		return errors.New("a report without its one ready workload")
	}
	if err := s.Send(&agentapi.Instructions{TrustDomain: "bench.example"}); err != nil {
		return err
	}
	<-s.Context().Done()
	return nil
}
