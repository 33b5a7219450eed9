package statetest

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/state"
)

func blobs(t *testing.T, s state.Store) {
	ctx := t.Context()
	_, err := s.Blob(ctx, "root")
	wantErr(t, err, state.ErrNotFound)
	root := state.Blob{Name: "root", Cert: []byte{1, 0, 2}, Key: []byte{3}, Created: epoch}
	ok(t, s.PutBlob(ctx, root, nil))
	wantErr(t, s.PutBlob(ctx, state.Blob{Name: "root", Cert: []byte{9}, Created: epoch}, nil), state.ErrSuperseded)
	mid := state.Blob{Name: "intermediate", Cert: []byte{4}, Created: epoch}
	ok(t, s.PutBlob(ctx, mid, nil))
	wantErr(t, s.PutBlob(ctx, state.Blob{Name: "intermediate", Cert: []byte{9}, Created: epoch}, []byte{3}),
		state.ErrSuperseded)
	mid.Cert = []byte{5}
	ok(t, s.PutBlob(ctx, mid, []byte{4}))
	for _, want := range []state.Blob{root, mid} {
		got, err := s.Blob(ctx, want.Name)
		ok(t, err)
		same(t, got, want)
	}
}

func cert(n int, node string, notAfter time.Time) state.Cert {
	return state.Cert{
		Serial: fmt.Sprintf("%032x", n), SPIFFEID: "spiffe://cards.example/ns/default/sa/payments", Node: node,
		Fingerprint: fmt.Sprintf("%064x", n), NotBefore: epoch, NotAfter: notAfter,
	}
}

func addCerts(t *testing.T, s state.Store, certs ...state.Cert) {
	t.Helper()
	for _, c := range certs {
		ok(t, s.AddCert(t.Context(), c, ""))
	}
}

func certs(t *testing.T, s state.Store) {
	ctx := t.Context()
	a, b, c := cert(1, "n1", after(time.Hour)), cert(2, "n2", after(2*time.Hour)), cert(3, "n1", after(3*time.Hour))
	ok(t, s.AddCert(ctx, a, ""))
	addCerts(t, s, b, c)
	for _, test := range []struct {
		filter state.CertFilter
		want   []state.Cert
	}{
		{state.CertFilter{}, []state.Cert{c, b, a}},
		{state.CertFilter{Limit: 1}, []state.Cert{c}},
		{state.CertFilter{Node: "n1"}, []state.Cert{c, a}},
		{state.CertFilter{Node: "n1", ValidAt: after(time.Hour)}, []state.Cert{c}},
		{state.CertFilter{SPIFFEID: "spiffe://cards.example/ns/default/sa/other"}, nil},
	} {
		got, err := s.Certs(ctx, test.filter)
		ok(t, err)
		same(t, got, test.want)
	}
	if err := s.AddCert(ctx, a, ""); err == nil {
		t.Fatal("a certificate was taken twice")
	}
	ok(t, s.PruneCerts(ctx, after(90*time.Minute)))
	got, err := s.Certs(ctx, state.CertFilter{})
	ok(t, err)
	same(t, got, []state.Cert{c, b})
}

// certsOfGenerations tests that a node that was revoked, or has joined again, gets no certificate from a control plane
// that does not know it yet.
func certsOfGenerations(t *testing.T, s state.Store) {
	ctx := t.Context()
	join := func(generation string) {
		t.Helper()
		ok(t, s.AttestNode(ctx, state.Node{
			Node: snapshot.Node{Name: "n1", Role: snapshot.RoleNode}, Generation: generation, Attested: epoch,
		}))
	}
	serial := 0
	add := func(node, generation string) error {
		serial++
		return s.AddCert(ctx, cert(serial, node, after(time.Hour)), generation)
	}
	wantErr(t, add("n1", "g1"), state.ErrRevoked) // it has never joined
	join("g1")
	ok(t, add("n1", "g1"))
	wantErr(t, add("n2", "g1"), state.ErrRevoked) // another's generation
	join("g2")
	wantErr(t, add("n1", "g1"), state.ErrRevoked)
	ok(t, add("n1", "g2"))
	ok(t, s.RevokeNode(ctx, "n1", after(time.Minute)))
	wantErr(t, add("n1", "g2"), state.ErrRevoked)
	ok(t, add("", ""))
	got, err := s.Certs(ctx, state.CertFilter{Node: "n1"})
	ok(t, err)
	if len(got) != 2 {
		t.Errorf("%d certificates of n1 are kept, want 2", len(got))
	}
}

func certsTogether(t *testing.T, s state.Store) {
	ctx := t.Context()
	var wg sync.WaitGroup
	for i := range 500 {
		wg.Go(func() {
			if err := s.AddCert(ctx, cert(i, "n1", after(time.Hour)), ""); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	got, err := s.Certs(ctx, state.CertFilter{})
	ok(t, err)
	if len(got) != 500 {
		t.Errorf("%d certificates, want 500", len(got))
	}
}
