package ca

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/state"
)

// Names of the authority's blobs in the store.
const (
	rootBlob         = "root"
	intermediateBlob = "intermediate"
)

// retryAfter is the pause after a failed renewal while the old certificate is still valid.
const retryAfter = 10 * time.Second

// material holds the signing certificate, its key and the trusted roots. It is immutable; a renewal makes a new one.
type material struct {
	*trust
	rootKey crypto.Signer // nil when the operator keeps it
	signer  *x509.Certificate
	key     crypto.Signer // of signer
	renewAt time.Time     // zero if signer cannot be renewed here
}

// trust is the part of material that does not change with the signing certificate.
type trust struct {
	roots    []*x509.Certificate // the signing one first
	rootsPEM []byte
	pool     *x509.CertPool
	rotation Rotation          // in progress, or the last one
	cross    *x509.Certificate // during a rotation, the signing root cross-signed by the old one
}

func newMaterial(rootKey crypto.Signer, roots ...*x509.Certificate) *material {
	m := &material{trust: &trust{roots: roots, pool: x509.NewCertPool()}, rootKey: rootKey}
	for _, r := range roots {
		m.pool.AddCert(r)
		m.rootsPEM = append(m.rootsPEM, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.Raw})...)
	}
	return m
}

// signing returns a copy of m with another signing certificate.
func (m *material) signing(cert *x509.Certificate, key crypto.Signer) *material {
	next := *m
	next.signer, next.key = cert, key
	if m.rootKey != nil {
		next.renewAt = cert.NotBefore.Add(cert.NotAfter.Sub(cert.NotBefore) / 2)
	}
	return &next
}

// isUsable reports whether m may sign now and is not due for renewal.
func (m *material) isUsable(now time.Time) bool {
	return !now.Before(m.signer.NotBefore) && now.Before(m.signer.NotAfter) &&
		(m.renewAt.IsZero() || now.Before(m.renewAt))
}

// load reads the material. If another control plane advances a rotation meanwhile, load starts again, so that it never
// mixes the parts of two steps.
func (a *Authority) load(ctx context.Context) (*material, error) {
	for {
		before, err := a.storedStep(ctx)
		if err != nil {
			return nil, err
		}
		m, failed := a.loadOnce(ctx)
		after, err := a.storedStep(ctx)
		if err != nil {
			return nil, err
		}
		if after == before {
			return m, failed
		}
	}
}

// storedStep returns the rotation's step in the store.
func (a *Authority) storedStep(ctx context.Context) (string, error) {
	r, err := a.cfg.Store.Rotation(ctx)
	if err != nil && !errors.Is(err, state.ErrNotFound) {
		return "", err
	}
	return r.Step + " " + r.NewRoot, nil
}

func (a *Authority) loadOnce(ctx context.Context) (*material, error) {
	if a.cfg.Operator.IntermediateCert != "" || a.cfg.Operator.IntermediateKey != "" {
		return a.loadOperatorIntermediate(ctx)
	}
	root, err := a.loadRoot(ctx)
	if err != nil {
		return nil, err
	}
	if a.cfg.Operator == (OperatorFiles{}) {
		if root, err = a.rotating(ctx, root); err != nil {
			return nil, err
		}
	}
	return a.intermediate(ctx, root)
}

// current returns the material to sign with. It renews the signing certificate after half its lifetime, or when the
// clock was set outside its validity. A failed renewal does not prevent signing while the old certificate is valid.
func (a *Authority) current(ctx context.Context) (*material, error) {
	if m := a.mat.Load(); m.isUsable(a.now()) {
		return m, nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	m := a.mat.Load()
	if m.isUsable(a.now()) {
		return m, nil
	}
	if m.rootKey == nil {
		return nil,
			fmt.Errorf("the operator's intermediate certificate is valid from %s to %s only: put a new one in its place and start again",
				m.signer.NotBefore.Format(time.RFC3339), m.signer.NotAfter.Format(time.RFC3339))
	}
	next, err := a.intermediate(ctx, m)
	if err == nil {
		a.mat.Store(next)
		return next, nil
	}
	if now := a.now(); now.Before(m.signer.NotAfter) && !now.Before(m.signer.NotBefore) {
		a.cfg.Log.Error("signing certificate not renewed, the old one goes on",
			"error", err, "not_after", m.signer.NotAfter)
		again := *m
		again.renewAt = now.Add(retryAfter)
		a.mat.Store(&again)
		return &again, nil
	}
	return nil, err
}

// intermediate returns m with the stored signing certificate if that is usable, else with a new one. If several control
// planes renew at once, one succeeds and the others use its certificate.
func (a *Authority) intermediate(ctx context.Context, m *material) (*material, error) {
	for {
		stored, was, err := a.storedIntermediate(ctx, m)
		if err != nil {
			return nil, err
		}
		if stored != nil && (stored.isUsable(a.now()) || m.rootKey == nil) {
			return stored, nil
		}
		made, err := a.newIntermediate(ctx, m, was)
		if !errors.Is(err, state.ErrSuperseded) {
			return made, err
		}
	}
}

// newIntermediate makes a signing certificate under m's root and replaces the stored certificate was.
func (a *Authority) newIntermediate(ctx context.Context, m *material, was []byte) (*material, error) {
	now := a.now()
	root := m.roots[0]
	if now.After(root.NotAfter) || now.Before(root.NotBefore) {
		return nil,
			fmt.Errorf("the root is valid from %s to %s, the clock says %s: set the clock right, or renew the root",
				root.NotBefore.Format(time.RFC3339), root.NotAfter.Format(time.RFC3339), now.Format(time.RFC3339))
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make intermediate key: %w", err)
	}
	cert, err := signCA(intermediateTemplate(a.cfg, root, now), root, key.Public(), m.rootKey)
	if err != nil {
		return nil, fmt.Errorf("make intermediate certificate: %w", err)
	}
	if err := a.putBlob(ctx, intermediateBlob, cert, key, was); err != nil {
		return nil, err
	}
	a.cfg.Log.Info("signing certificate made", "not_after", cert.NotAfter, "fingerprint", spiffe.Fingerprint(cert))
	return m.signing(cert, key), nil
}

// storedIntermediate returns m with the stored signing certificate, or nil if there is none under this root. was is the
// stored certificate, even if it is not usable.
func (a *Authority) storedIntermediate(ctx context.Context, m *material) (signing *material, was []byte, err error) {
	b, err := a.cfg.Store.Blob(ctx, intermediateBlob)
	if errors.Is(err, state.ErrNotFound) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	cert, key, err := a.openBlob(b)
	if err != nil {
		return nil, nil, err
	}
	if err := cert.CheckSignatureFrom(m.roots[0]); err != nil {
		return nil, b.Cert, nil // made under another root, and will be replaced
	}
	return m.signing(cert, key), b.Cert, nil
}

// putBlob seals a key and stores it with its certificate, in place of the certificate was.
func (a *Authority) putBlob(
	ctx context.Context, name string, cert *x509.Certificate, key crypto.Signer, was []byte,
) error {
	b, err := a.sealed(name, cert, key)
	if err != nil {
		return err
	}
	if err := a.cfg.Store.PutBlob(ctx, b, was); err != nil {
		return fmt.Errorf("keep the %s certificate: %w", name, err)
	}
	return nil
}

func (a *Authority) sealed(name string, cert *x509.Certificate, key crypto.Signer) (state.Blob, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return state.Blob{}, fmt.Errorf("encode the key of %s: %w", name, err)
	}
	sealed, err := a.key.seal(a.blobContext(name), der)
	if err != nil {
		return state.Blob{}, fmt.Errorf("encrypt the key of %s: %w", name, err)
	}
	return state.Blob{Name: name, Cert: cert.Raw, Key: sealed, Created: a.now()}, nil
}

func (a *Authority) openBlob(b state.Blob) (*x509.Certificate, crypto.Signer, error) {
	cert, err := x509.ParseCertificate(b.Cert)
	if err != nil {
		return nil, nil,
			fmt.Errorf("the %s certificate in the state does not parse, restore the state from a backup: %w",
				b.Name, err)
	}
	der, err := a.key.open(a.blobContext(b.Name), b.Key)
	if err != nil {
		return nil, nil,
			fmt.Errorf("key file %s does not open the %s key in the state: it is not the key file that belongs to this state; restore that one", a.cfg.KeyFile, b.Name)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, nil, fmt.Errorf("decode the %s key: %w", b.Name, err)
	}
	key, ok := parsed.(crypto.Signer)
	if !ok || !samePublic(cert.PublicKey, key.Public()) {
		return nil, nil,
			fmt.Errorf("the %s key in the state is not that of its certificate: restore the state from a backup",
				b.Name)
	}
	return cert, key, nil
}

// blobContext binds a sealed key to its name, so that it cannot be swapped for another sealed key.
func (a *Authority) blobContext(name string) string {
	return "isthmus ca key\x00" + a.cfg.TrustDomain.Name() + "\x00" + name
}

func samePublic(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}
