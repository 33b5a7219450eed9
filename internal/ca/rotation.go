package ca

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/state"
	"isthmus.dev/isthmus/internal/times"
)

// Blobs that exist only during a rotation.
const (
	nextRootBlob = "root-next"  // until it becomes the signing root
	oldRootBlob  = "root-old"   // still trusted; its key has been deleted
	crossBlob    = "root-cross" // the new root cross-signed by the old root
)

// Errors of rotation requests.
var (
	ErrOperatorRoot = errors.New("this mesh stands under an operator's root, whose key is not Isthmus's to replace")
	ErrRotating     = errors.New("a rotation is under way already")
	ErrNotRotating  = errors.New("no rotation is under way")
)

// Step is the progress of a rotation. Each step is stored before it is executed, and executed again at every
// start, so that a crash at any point loses nothing.
type Step string

// The steps. The rotation package decides when the mesh is ready for the next one.
const (
	Prepared    Step = "prepared"    // the new root is trusted beside the old one, which still signs
	Distributed Step = "distributed" // every participant trusts both
	Activated   Step = "activated"   // the new root signs
	Drained     Step = "drained"     // no certificate in use chains to the old root
	Done        Step = "done"        // the old root is no longer trusted
	Cancelled   Step = "cancelled"   // the new root was withdrawn before it signed
)

// Rotation is the replacement of the root.
type Rotation struct {
	Step  Step
	Old   string // SHA-256, hex
	New   string
	Began time.Time
	Since time.Time // when Step began
	// Passed names the participants that an administrator chose not to wait for.
	Passed []string
}

// InProgress reports whether two roots are trusted.
func (r Rotation) InProgress() bool {
	return r.Step == Prepared || r.Step == Distributed || r.Step == Activated || r.Step == Drained
}

// signing returns the fingerprint of the signing root.
func (r Rotation) signing() string {
	if r.Step == Activated || r.Step == Drained || r.Step == Done {
		return r.New
	}
	return r.Old
}

// Rotation returns the rotation in progress, else the last one, else the zero value.
func (a *Authority) Rotation() Rotation {
	r := a.mat.Load().rotation
	r.Passed = slices.Clone(r.Passed)
	return r
}

// RootCertificates returns the roots that the mesh trusts, the signing one first.
func (a *Authority) RootCertificates() []*x509.Certificate { return slices.Clone(a.mat.Load().roots) }

// OperatorsRoot reports whether the root is the operator's own.
func (a *Authority) OperatorsRoot() bool { return a.cfg.Operator != OperatorFiles{} }

// BeginRotation makes a new root that is trusted beside the old one.
func (a *Authority) BeginRotation(ctx context.Context) (Rotation, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	m := a.mat.Load()
	switch {
	case a.OperatorsRoot():
		return Rotation{},
			fmt.Errorf("%w: keep the root and renew the intermediate under it (ca.intermediateCert, ca.intermediateKey); "+
				"another root needs a new state file, and every node and peer joins again", ErrOperatorRoot)
	case m.rotation.InProgress():
		return m.rotation, ErrRotating
	}
	cert, key, err := makeRoot(a.cfg, a.now())
	if err != nil {
		return Rotation{}, fmt.Errorf("make the next root: %w", err)
	}
	next, err := a.sealed(nextRootBlob, cert, key)
	if err != nil {
		return Rotation{}, err
	}
	now := a.now()
	r := Rotation{
		Step: Prepared, Old: spiffe.Fingerprint(m.roots[0]), New: spiffe.Fingerprint(cert), Began: now, Since: now,
	}
	return r, a.step(ctx, m.rotation.Step, r, []state.Blob{next}, []string{oldRootBlob, crossBlob})
}

// AdvanceRotation takes the step that follows from. passed names the participants not waited for. If the rotation is
// not at from, nothing happens, and the result shows where it is.
func (a *Authority) AdvanceRotation(ctx context.Context, from Step, passed []string) (Rotation, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := a.mat.Load().rotation
	kept, err := a.cfg.Store.Rotation(ctx)
	if err != nil {
		return r, err
	}
	if Step(kept.Step) != r.Step { // an earlier attempt was stored and then failed
		return a.mat.Load().rotation, a.reload(ctx)
	}
	if r.Step != from {
		return r, nil
	}
	r.Since = a.now()
	r.Passed = append(slices.Clone(r.Passed), passed...)
	switch from {
	case Prepared:
		r.Step = Distributed
		return r, a.step(ctx, from, r, nil, nil)
	case Distributed:
		r.Step = Activated
		return r, a.activate(ctx, from, r)
	case Activated:
		r.Step = Drained
		return r, a.step(ctx, from, r, nil, nil)
	case Drained:
		r.Step = Done
		return r, a.step(ctx, from, r, nil, []string{oldRootBlob, crossBlob})
	}
	return r, ErrNotRotating
}

// CancelRotation withdraws the new root before it signs.
func (a *Authority) CancelRotation(ctx context.Context) (Rotation, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := a.mat.Load().rotation
	switch {
	case !r.InProgress():
		return r, ErrNotRotating
	case r.Step != Prepared && r.Step != Distributed:
		return r,
			fmt.Errorf("the new root signs already: let the rotation end, and rotate again if the new root is no good: %w", ErrRotating)
	}
	from := r.Step
	r.Step, r.Since = Cancelled, a.now()
	return r, a.step(ctx, from, r, nil, []string{nextRootBlob})
}

// step stores a step with its material and loads it, provided that the rotation is still at from. If another control
// plane has advanced it, step loads that state instead. The caller holds mu.
func (a *Authority) step(ctx context.Context, from Step, r Rotation, put []state.Blob, remove []string) error {
	kept := state.Rotation{
		Step: string(r.Step), OldRoot: r.Old, NewRoot: r.New, Signing: r.signing(), Began: r.Began, Since: r.Since,
		Passed: r.Passed,
	}
	err := a.cfg.Store.PutRotation(ctx, string(from), kept, put, remove)
	if errors.Is(err, state.ErrSuperseded) {
		return errors.Join(fmt.Errorf("root rotation to step %s: %w", r.Step, err), a.reload(ctx))
	}
	if err != nil {
		return fmt.Errorf("root rotation to step %s: %w", r.Step, err)
	}
	a.cfg.Log.Info("root rotation", "step", string(r.Step), "old", r.Old, "new", r.New)
	return a.reload(ctx)
}

// reload loads the state as at a start. The caller holds mu.
func (a *Authority) reload(ctx context.Context) error {
	m, err := a.load(ctx)
	if err != nil {
		return fmt.Errorf("take up the rotation's step: %w", err)
	}
	a.mat.Store(m)
	return nil
}

// activate makes the next root the signing one. The old root cross-signs it, for clients that know only the old root.
// The old key is then deleted.
func (a *Authority) activate(ctx context.Context, from Step, r Rotation) error {
	b, err := a.cfg.Store.Blob(ctx, nextRootBlob)
	if errors.Is(err, state.ErrNotFound) {
		// another control plane has activated it
		if kept, err := a.cfg.Store.Rotation(ctx); err == nil && Step(kept.Step) != from {
			err = fmt.Errorf("root rotation to step %s: %w", r.Step, state.ErrSuperseded)
			return errors.Join(err, a.reload(ctx))
		}
	}
	if err != nil {
		return err
	}
	next, key, err := a.openBlob(b)
	if err != nil {
		return err
	}
	m := a.mat.Load()
	old := m.roots[0]
	cross, err := crossSign(next, old, m.rootKey)
	if err != nil {
		return fmt.Errorf("sign the new root with the old one: %w", err)
	}
	root, err := a.sealed(rootBlob, next, key)
	if err != nil {
		return err
	}
	return a.step(ctx, from, r, []state.Blob{
		root,
		{Name: oldRootBlob, Cert: old.Raw, Created: a.now()},
		{Name: crossBlob, Cert: cross.Raw, Created: a.now()},
	}, []string{nextRootBlob, intermediateBlob})
}

func crossSign(next, old *x509.Certificate, oldKey crypto.Signer) (*x509.Certificate, error) {
	return signCA(&x509.Certificate{
		SerialNumber: newSerial(), Subject: next.Subject, URIs: next.URIs, SubjectKeyId: next.SubjectKeyId,
		NotBefore: next.NotBefore, NotAfter: times.Earlier(next.NotAfter, old.NotAfter),
		BasicConstraintsValid: true, IsCA: true, KeyUsage: next.KeyUsage,
	}, old, next.PublicKey, oldKey)
}

// rotating adds the roots that are trusted only during a rotation.
func (a *Authority) rotating(ctx context.Context, m *material) (*material, error) {
	kept, err := a.cfg.Store.Rotation(ctx)
	if errors.Is(err, state.ErrNotFound) {
		return m, nil
	}
	if err != nil {
		return nil, err
	}
	r := Rotation{
		Step: Step(kept.Step), Old: kept.OldRoot, New: kept.NewRoot, Began: kept.Began, Since: kept.Since,
		Passed: kept.Passed,
	}
	out := m
	switch r.Step {
	case Prepared, Distributed:
		out, err = a.loadNamed(ctx, m, nextRootBlob)
	case Activated, Drained:
		if out, err = a.loadNamed(ctx, m, oldRootBlob); err == nil {
			out.cross, err = a.blobCert(ctx, crossBlob)
		}
	}
	if err != nil {
		return nil,
			fmt.Errorf("the rotation of the root stands at %s, and what belongs to it cannot be read; restore the state from a backup: %w", r.Step, err)
	}
	out.rotation = r
	return out, nil
}

func (a *Authority) loadNamed(ctx context.Context, m *material, name string) (*material, error) {
	cert, err := a.blobCert(ctx, name)
	if err != nil {
		return nil, err
	}
	return newMaterial(m.rootKey, m.roots[0], cert), nil
}

func (a *Authority) blobCert(ctx context.Context, name string) (*x509.Certificate, error) {
	b, err := a.cfg.Store.Blob(ctx, name)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(b.Cert)
}
