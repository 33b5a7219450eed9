package statetest

import (
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/state"
)

const (
	oneRoot     = "1111111111111111111111111111111111111111111111111111111111111111"
	anotherRoot = "2222222222222222222222222222222222222222222222222222222222222222"
)

func rotation(t *testing.T, s state.Store) {
	ctx := t.Context()
	_, err := s.Rotation(ctx)
	wantErr(t, err, state.ErrNotFound)
	next := state.Blob{Name: "root-next", Cert: []byte{1}, Key: []byte{2}, Created: epoch}
	begun := state.Rotation{
		Step: "prepared", OldRoot: oneRoot, NewRoot: anotherRoot, Signing: oneRoot, Began: epoch,
		Since: epoch, Passed: []string{},
	}
	ok(t, s.PutRotation(ctx, "", begun, []state.Blob{next}, nil))
	got, err := s.Rotation(ctx)
	ok(t, err)
	same(t, got, begun)

	// A step and its material are stored atomically.
	bad := begun
	bad.NewRoot = "no hex"
	if err := s.PutRotation(ctx, "prepared", bad, nil, []string{"root-next"}); err == nil {
		t.Error("a fingerprint that is none was kept")
	}
	_, err = s.Blob(ctx, "root-next")
	ok(t, err)
	later := begun
	later.Signing = anotherRoot
	wantErr(t, s.PutRotation(ctx, "distributed", later, nil, []string{"root-next"}), state.ErrSuperseded)
	later.Step, later.Since, later.Passed = "activated", after(time.Minute), []string{"proxy n1"}
	root := state.Blob{Name: "root", Cert: []byte{1}, Key: []byte{3}, Created: epoch}
	ok(t, s.PutRotation(ctx, "prepared", later, []state.Blob{root}, []string{"root-next"}))
	got, err = s.Rotation(ctx)
	ok(t, err)
	same(t, got, later)
	kept, err := s.Blob(ctx, "root")
	ok(t, err)
	same(t, kept, root)
	_, err = s.Blob(ctx, "root-next")
	wantErr(t, err, state.ErrNotFound)
}

// underTheSigningRoot tests that a control plane that has not learned of a new signing root issues nothing.
func underTheSigningRoot(t *testing.T, s state.Store) {
	ctx := t.Context()
	before := cert(1, "n1", after(time.Hour))
	before.Root = oneRoot
	ok(t, s.AddCert(ctx, before, "")) // before any rotation
	ok(t, s.PutRotation(ctx, "", state.Rotation{
		Step: "activated", OldRoot: oneRoot, NewRoot: anotherRoot,
		Signing: anotherRoot, Began: epoch, Since: epoch,
	}, nil, nil))
	late, young := cert(2, "n1", after(time.Hour)), cert(3, "n1", after(time.Hour))
	late.Root, young.Root = oneRoot, anotherRoot
	wantErr(t, s.AddCert(ctx, late, ""), state.ErrSuperseded)
	ok(t, s.AddCert(ctx, young, ""))
}

func certsUnder(t *testing.T, s state.Store) {
	ctx := t.Context()
	before, young, moved, over := cert(1, "n1", after(time.Hour)), cert(2, "n1", after(2*time.Hour)),
		cert(3, "n2", after(time.Hour)), cert(4, "n3", after(time.Minute))
	before.Root, young.Root, moved.Root = oneRoot, oneRoot, anotherRoot // issued before roots were recorded
	addCerts(t, s, before, young, moved, over)
	shut, good := cert(0xabcd, "", after(time.Hour)), cert(6, "", after(time.Hour))
	shut.SPIFFEID, shut.Root = "spiffe://cards.example/isthmus/admin/alice", oneRoot
	good.SPIFFEID, good.Root = "spiffe://cards.example/isthmus/admin/bob", oneRoot
	ofN2, err := s.Certs(ctx, state.CertFilter{Node: "n2"})
	ok(t, err)
	same(t, ofN2, []state.Cert{moved})
	addCerts(t, s, shut, good)
	ok(t,
		s.AddAdmin(ctx,
			state.Admin{Generation: "a", Name: "alice", Serial: shut.Serial, Created: epoch, NotAfter: shut.NotAfter}))
	ok(t,
		s.AddAdmin(ctx,
			state.Admin{Generation: "b", Name: "bob", Serial: good.Serial, Created: epoch, NotAfter: good.NotAfter}))
	ok(t, s.RevokeAdmins(ctx, "alice", "", epoch))
	got, err := s.CertsUnder(ctx, oneRoot, epoch)
	ok(t, err)
	same(t, got,
		[]state.CertUse{{SPIFFEID: good.SPIFFEID, NotAfter: good.NotAfter}, {
			Node: "n1", SPIFFEID: young.SPIFFEID, NotAfter: young.NotAfter,
		}})
	got, err = s.CertsUnder(ctx, oneRoot, after(2*time.Hour))
	ok(t, err)
	same(t, got, []state.CertUse(nil))
}
