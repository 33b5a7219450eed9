package workloadapi

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"isthmus.dev/isthmus/internal/logtest"
	"isthmus.dev/isthmus/internal/node/identity"
	"isthmus.dev/isthmus/internal/node/sds"
	"isthmus.dev/isthmus/internal/spiffe"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// store holds one identity, spiffe://cards.example/ns/default/sa/pay, under roots that a test changes.
type store struct {
	t *testing.T

	mu   sync.Mutex // guards held
	held sds.IdentityState
	wake chan struct{}
}

func newStore(t *testing.T) *store {
	wake := make(chan struct{})
	return &store{t: t, wake: wake, held: sds.IdentityState{Changed: wake}}
}

func (s *store) Acquire(id spiffe.ID) (sds.IdentityState, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held, id.String() == "spiffe://cards.example/ns/default/sa/pay"
}

func (s *store) change(fn func(*sds.IdentityState)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fn(&s.held)
	close(s.wake)
	s.wake = make(chan struct{})
	s.held.Changed = s.wake
}

// authority signs for tests.
type authority struct {
	t    *testing.T
	root *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		URIs: []*url.URL{{Scheme: "spiffe", Host: "cards.example"}},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	root, err := x509.ParseCertificate(der)
	must(t, err)
	return authority{t: t, root: root, key: key}
}

func (a authority) issue(serial int64, life time.Duration) *identity.SVID {
	a.t.Helper()
	key, err := identity.NewKey()
	must(a.t, err)
	now := time.Now()
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(serial), NotBefore: now.Add(-2 * time.Hour), NotAfter: now.Add(life),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		URIs:        []*url.URL{{Scheme: "spiffe", Host: "cards.example", Path: "/ns/default/sa/pay"}},
	}, a.root, key.Public(), a.key)
	must(a.t, err)
	// At a moment when both the certificate and its root were valid.
	svid, err := identity.NewSVID(key, [][]byte{der},
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.root.Raw}), now.Add(-time.Minute))
	must(a.t, err)
	return svid
}

// world is a server for one workload, which is this very process unless a test says otherwise.
type world struct {
	store  *store
	log    *logtest.Buffer
	joined chan struct{}
	server *Server
	path   string
	stop   func()
}

func newWorld(t *testing.T, change func(*Workload)) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "isthmus-t-") // short: a socket's address holds 107 bytes
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	w := &world{
		store: newStore(t), log: &logtest.Buffer{}, joined: make(chan struct{}),
		path: filepath.Join(dir, "workload", "default", "pay-1.sock"),
	}
	wl := Workload{
		Name: "default/pay-1", Account: sds.ServiceAccount{Namespace: "default", Name: "pay"},
		Netns: "/proc/self/ns/net", Path: w.path,
	}
	if change != nil {
		change(&wl)
	}
	w.server = New(Config{
		Log: slog.New(slog.NewTextHandler(w.log, nil)), Workloads: []Workload{wl},
		Folder: filepath.Join(dir, "workload"), Store: w.store, Joined: w.joined,
		TrustDomain: func() spiffe.TrustDomain { return spiffeid.RequireTrustDomainFromString("cards.example") },
	})
	w.server.patience = 300 * time.Millisecond
	must(t, w.server.Listen())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.server.Run(ctx) }()
	var once sync.Once
	w.stop = func() {
		once.Do(func() {
			cancel()
			<-done
			w.server.Close()
		})
	}
	t.Cleanup(w.stop)
	return w
}

func (w *world) dial(t *testing.T) *grpc.ClientConn {
	t.Helper()
	c, err := grpc.NewClient("unix://"+w.path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}
