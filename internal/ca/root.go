package ca

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"

	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/state"
)

// loadRoot returns the root and its key: the operator's, the stored one, or, at the first start, a new one.
func (a *Authority) loadRoot(ctx context.Context) (*material, error) {
	stored, err := a.cfg.Store.Blob(ctx, rootBlob)
	first := errors.Is(err, state.ErrNotFound)
	if err != nil && !first {
		return nil, err
	}
	file, err := a.loadKey(first)
	if err != nil {
		return nil, err
	}
	a.key = file.key

	var m *material
	switch {
	case a.cfg.Operator.RootCert != "" || a.cfg.Operator.RootKey != "":
		m, err = a.operatorRoot(ctx, stored, first)
	case first:
		m, err = a.firstRoot(ctx)
	default:
		m, err = a.storedRoot(stored)
	}
	if err != nil {
		return nil, err
	}
	if file.ours && !file.guards {
		return m, markKeyFile(a.cfg.KeyFile, spiffe.Fingerprint(m.roots[0]))
	}
	return m, nil
}

// loadKey reads the key file, or makes it at the first start.
func (a *Authority) loadKey(first bool) (keyFile, error) {
	path := a.cfg.KeyFile
	if path == "" {
		return keyFile{}, errors.New("no key file is named: it encrypts the CA's private keys")
	}
	f, err := readKeyFile(path)
	missing := errors.Is(err, fs.ErrNotExist)
	switch {
	case missing && first:
		return makeKeyFile(path)
	case missing:
		return f,
			fmt.Errorf("key file %s is missing, and the CA's private keys in the state open with nothing else: "+
				"restore it from its backup, or copy it from another control plane of the mesh. Without it the mesh "+
				"can only begin anew, with a new state: then every node and peer must join again", path)
	case err != nil:
		return f, err
	case f.guards && first:
		return f,
			fmt.Errorf("the state holds no CA, yet key file %s guards one: the state file was lost, or another one is named. "+
				"Restore the right state file; only to begin the mesh anew, remove the key file: then every node and peer must join again", path)
	}
	return f, nil
}

func (a *Authority) firstRoot(ctx context.Context) (*material, error) {
	cert, key, err := makeRoot(a.cfg, a.now())
	if err != nil {
		return nil, fmt.Errorf("make root: %w", err)
	}
	err = a.putBlob(ctx, rootBlob, cert, key, nil)
	if errors.Is(err, state.ErrSuperseded) { // another control plane with the same store was first
		stored, err := a.cfg.Store.Blob(ctx, rootBlob)
		if err != nil {
			return nil, err
		}
		return a.storedRoot(stored)
	}
	if err != nil {
		return nil, err
	}
	a.cfg.Log.Info("root made", "trust_domain", a.cfg.TrustDomain.Name(), "fingerprint", spiffe.Fingerprint(cert),
		"not_after", cert.NotAfter)
	return newMaterial(key, cert), nil
}

func (a *Authority) storedRoot(stored state.Blob) (*material, error) {
	if len(stored.Key) == 0 {
		return nil, errors.New("this mesh was begun with an operator's root: name its files again")
	}
	cert, err := x509.ParseCertificate(stored.Cert)
	if err != nil {
		return nil, fmt.Errorf("the root in the state does not parse, restore the state from a backup: %w", err)
	}
	if err := checkDomain(cert, a.cfg.TrustDomain); err != nil {
		return nil,
			fmt.Errorf("the root in the state is of another mesh: %w; a mesh cannot change its trust domain: name the right one, or another state file", err)
	}
	cert, key, err := a.openBlob(stored)
	if err != nil {
		return nil, err
	}
	return newMaterial(key, cert), nil
}

// pinRoot checks that an operator's root is the one with which the mesh was created. Another root would cut off all
// nodes and peers.
func (a *Authority) pinRoot(ctx context.Context, stored state.Blob, first bool, root *x509.Certificate) error {
	if first {
		err := a.cfg.Store.PutBlob(ctx, state.Blob{Name: rootBlob, Cert: root.Raw, Created: a.now()}, nil)
		if err != nil {
			return fmt.Errorf("keep the root certificate: %w", err)
		}
		return nil
	}
	if bytes.Equal(stored.Cert, root.Raw) {
		return nil
	}
	return fmt.Errorf("root certificate %s has SHA-256 %s, but this mesh was begun with %s: name that one again; "+
		"to begin anew with this root, use a new state file: then every node and peer must join again",
		a.cfg.Operator.RootCert, spiffe.Fingerprint(root), spiffe.FingerprintOf(stored.Cert))
}

// checkDomain refuses a CA certificate that names another trust domain.
func checkDomain(c *x509.Certificate, td spiffe.TrustDomain) error {
	for _, u := range c.URIs {
		if u.Scheme == "spiffe" && u.String() != td.IDString() {
			return fmt.Errorf("its name is %s, not %s", u, td.IDString())
		}
	}
	return nil
}
