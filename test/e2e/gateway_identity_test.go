//go:build e2e

package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"net/url"
	"os"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/node/identity"
	"isthmus.dev/isthmus/internal/snapshot"
)

// gwCA is the root of one trust domain, in the hands of this test.
type gwCA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  string
}

var gwSerial atomic.Int64

func newGwCA(t *testing.T, name string) *gwCA {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(gwSerial.Add(1)), Subject: pkix.Name{CommonName: name}, IsCA: true,
		BasicConstraintsValid: true,
		NotBefore:             time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
		KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	return &gwCA{cert, key, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))}
}

// leaf is a certificate of this root for an identity, good for an hour around now unless changed.
func (ca *gwCA) leaf(t *testing.T, id string, change ...func(*x509.Certificate)) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	uri, err := url.Parse(id)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(gwSerial.Add(1)), URIs: []*url.URL{uri}, KeyUsage: x509.KeyUsageDigitalSignature,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, c := range change {
		c(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, key.Public(), ca.key)
	must(t, err)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (ca *gwCA) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	return pool
}

func expired(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }
func future(c *x509.Certificate) {
	c.NotBefore, c.NotAfter = time.Now().Add(time.Hour), time.Now().Add(2*time.Hour)
}

// gwPeer is another mesh as far as this one meets it: a root, and one gateway that serves and calls.
type gwPeer struct {
	name, td, addr string
	ca             *gwCA
	own            *tls.Certificate // what its gateway shows
	server         *gwServer
	object         *v1alpha1.MeshPeer
}

func (p *gwPeer) gatewayID() string { return "spiffe://" + p.td + "/ns/isthmus-system/sa/edge" }

// asks is the name under which this mesh exports to the peer.
func (p *gwPeer) asks(alias string) string { return alias + ".default." + p.name + ".fed.home.example" }

func (p *gwPeer) serverTLS(cert *tls.Certificate) *tls.Config {
	return &tls.Config{
		Certificates: []tls.Certificate{*cert}, ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS13,
		NextProtos: []string{"isthmus"},
	}
}

// client calls this mesh as the peer's gateway does, on behalf of the peer's web.
func (p *gwPeer) client(alias string) gwCaller {
	return gwCaller{
		from: p.addr, to: gwIngress, sni: p.asks(alias), peer: p,
		asserts: []string{"spiffe://" + p.td + "/ns/default/sa/web"},
	}
}

func (g *gateway) makePeers(t *testing.T) {
	t.Helper()
	for n, name := range append([]string{"north", "south", "east", "west", "stale"}, falsePeers()...) {
		p := &gwPeer{name: name, td: name + ".example", addr: fmt.Sprintf("192.0.2.%d", 11+n), ca: newGwCA(t, name)}
		no := false
		p.object = &v1alpha1.MeshPeer{
			TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.APIVersion, Kind: "MeshPeer"},
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: v1alpha1.MeshPeerSpec{
				TrustDomain: p.td, KnownAs: "home", GatewayAddresses: []string{p.addr + ":15443"},
				GatewayIDs: []string{p.gatewayID()},
				Bundle:     v1alpha1.PeerBundle{Inline: p.ca.pem, Refresh: &no},
			},
		}
		p.own = p.ca.leaf(t, p.gatewayID())
		p.server = startServer(t, name, p.addr+":15443", p.serverTLS(p.own))
		g.peers[name] = p
	}
}

// gwNode is a node without an Envoy: it registers workloads and gets their certificates.
type gwNode struct {
	conn  *grpc.ClientConn
	roots *x509.CertPool
	svids map[string]*tls.Certificate // by service account
}

func (g *gateway) joinNode(t *testing.T) *gwNode {
	t.Helper()
	path := gwDir + "/node.token"
	must(t, os.WriteFile(path, []byte(g.token(t, "node-1", snapshot.RoleNode, "default/*")), 0o600))
	token, err := identity.LoadToken(path)
	must(t, err)
	conn := dialControl(t, identity.AttestTLS(token))
	own := svid(t, func(csr []byte) ([][]byte, []byte, error) {
		r, err := agentapi.Client{Conn: conn}.Attest(t.Context(),
			&agentapi.AttestRequest{Token: token.Secret(), CSR: csr})
		if err != nil {
			return nil, nil, err
		}
		return r.Chain, r.Roots, nil
	})
	n := &gwNode{
		conn: dialControl(t, identity.ControlTLS(func() *identity.SVID { return own })), roots: own.RootPool(),
		svids: map[string]*tls.Certificate{},
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	stream, err := agentapi.Client{Conn: n.conn}.Sync(ctx)
	must(t, err)
	report := &agentapi.Report{Version: "test"}
	for k, w := range []struct {
		name  string
		ports []snapshot.WorkloadPort
	}{
		{"web", nil},
		{"other", nil},
		{"api", []snapshot.WorkloadPort{{Name: "http", Number: 8080}}},
		{"bank", []snapshot.WorkloadPort{{Name: "raw", Number: 7001}}},
		{"gone", []snapshot.WorkloadPort{{Name: "http", Number: 8080}}},
		{"mask", []snapshot.WorkloadPort{{Name: "http", Number: 8080}}},
	} {
		report.Workloads = append(report.Workloads, snapshot.Workload{
			Name: w.name, Namespace: "default", ServiceAccount: w.name, Labels: map[string]string{"app": w.name},
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 98, 1, byte(21 + k)})}, Ports: w.ports, Ready: true,
		})
	}
	must(t, stream.Send(report))
	_, err = stream.Recv() // registered
	must(t, err)
	for _, w := range report.Workloads {
		n.svids[w.Name] = svid(t, func(csr []byte) ([][]byte, []byte, error) {
			r, err := agentapi.Client{Conn: n.conn}.Sign(t.Context(),
				&agentapi.SignRequest{Namespace: "default", ServiceAccount: w.Name, CSR: csr})
			if err != nil {
				return nil, nil, err
			}
			return r.Chain, r.Roots, nil
		}).TLS()
	}
	return n
}

func dialControl(t *testing.T, conf *tls.Config) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+gwControl+":15012",
		grpc.WithTransportCredentials(credentials.NewTLS(conf)), grpc.WithAuthority("control"),
		grpc.WithContextDialer(func(_ context.Context, addr string) (net.Conn,
			error,
		) {
			return gwDial(gwControl, addr)
		}))
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

func svid(t *testing.T, sign func(csr []byte) ([][]byte, []byte, error)) *identity.SVID {
	t.Helper()
	key, csr, err := identity.NewRequest()
	must(t, err)
	chain, roots, err := sign(csr)
	must(t, err)
	s, err := identity.NewSVID(key, chain, roots, time.Now())
	must(t, err)
	return s
}

func (g *gateway) startWorkloads(t *testing.T) {
	t.Helper()
	g.api = startServer(t, "api", "10.98.1.23:8080", g.workloadTLS("api"))
	g.bank = startServer(t, "bank", "10.98.1.24:7001", g.workloadTLS("bank"))
	g.bank.raw = true
	startServer(t, "mask", "10.98.1.26:8080", g.workloadTLS("other")) // not whom the gateway expects there
}

// workloadTLS admits this mesh's gateway alone.
func (g *gateway) workloadTLS(serviceAccount string) *tls.Config {
	return &tls.Config{
		Certificates: []tls.Certificate{*g.node.svids[serviceAccount]}, MinVersion: tls.VersionTLS13,
		NextProtos: []string{"isthmus"},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: g.node.roots,
		VerifyConnection: func(cs tls.ConnectionState) error {
			if id := cs.PeerCertificates[0].URIs[0].String(); id != gwGatewayID {
				return errors.New(id)
			}
			return nil
		},
	}
}
