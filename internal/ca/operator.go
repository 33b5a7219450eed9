package ca

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/state"
)

// OperatorFiles are the PEM files of an operator's own CA. They are either a root certificate and its key, under which
// the authority makes its intermediates, or a root certificate, an intermediate certificate and the intermediate's key,
// if the root key is kept elsewhere.
type OperatorFiles struct {
	RootCert         string
	RootKey          string
	IntermediateCert string
	IntermediateKey  string
}

// operatorRoot builds the material from the operator's root and root key.
func (a *Authority) operatorRoot(ctx context.Context, stored state.Blob, first bool) (*material, error) {
	o := a.cfg.Operator
	if o.RootCert == "" || o.RootKey == "" {
		return nil,
			errors.New("an operator's root needs both its certificate and its key, or an intermediate certificate and its key: name the missing file")
	}
	root, key, err := readPair(o.RootCert, o.RootKey)
	if err != nil {
		return nil, err
	}
	if err := a.checkRoot(root); err != nil {
		return nil, err
	}
	m := newMaterial(key, root)
	if err := a.selfTest(m, o.RootCert); err != nil {
		return nil, err
	}
	return m, a.pinRoot(ctx, stored, first, root)
}

// loadOperatorIntermediate builds the material from the operator's root and intermediate.
func (a *Authority) loadOperatorIntermediate(ctx context.Context) (*material, error) {
	o := a.cfg.Operator
	if o.RootCert == "" || o.IntermediateCert == "" || o.IntermediateKey == "" {
		return nil,
			errors.New("an operator's intermediate needs root certificate, intermediate certificate and intermediate key: name the missing file")
	}
	if o.RootKey != "" {
		return nil,
			fmt.Errorf("root key %s is not needed beside an intermediate: take it off this machine and do not name it",
				o.RootKey)
	}
	root, err := readCert(o.RootCert)
	if err != nil {
		return nil, err
	}
	if err := a.checkRoot(root); err != nil {
		return nil, err
	}
	cert, key, err := readPair(o.IntermediateCert, o.IntermediateKey)
	if err != nil {
		return nil, err
	}
	if err := a.checkCA(cert, o.IntermediateCert); err != nil {
		return nil, err
	}
	if err := cert.CheckSignatureFrom(root); err != nil {
		return nil,
			fmt.Errorf("intermediate certificate %s was not signed by root %s: name the root that signed it: %w",
				o.IntermediateCert, o.RootCert, err)
	}
	m := newMaterial(nil, root).signing(cert, key)
	if err := a.selfTest(m, o.IntermediateCert); err != nil {
		return nil, err
	}
	stored, err := a.cfg.Store.Blob(ctx, rootBlob)
	first := errors.Is(err, state.ErrNotFound)
	if err != nil && !first {
		return nil, err
	}
	return m, a.pinRoot(ctx, stored, first, root)
}

func (a *Authority) checkRoot(root *x509.Certificate) error {
	file := a.cfg.Operator.RootCert
	if err := a.checkCA(root, file); err != nil {
		return err
	}
	if root.CheckSignatureFrom(root) != nil {
		return fmt.Errorf("certificate %s is not self-signed, so it is no root: name its top root as the root, and this one as the intermediate", file)
	}
	if root.MaxPathLen == 0 && root.MaxPathLenZero {
		return fmt.Errorf("root certificate %s has path length 0, so no intermediate may stand under it: make one with a path length of 1 or more, or without", file)
	}
	return nil
}

// checkCA refuses a CA certificate that cannot sign for this mesh.
func (a *Authority) checkCA(c *x509.Certificate, file string) error {
	if !c.BasicConstraintsValid || !c.IsCA {
		return fmt.Errorf("certificate %s is not a CA (basic constraints CA:TRUE is missing): name a CA certificate",
			file)
	}
	if c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0 {
		return fmt.Errorf("certificate %s may not sign certificates (key usage keyCertSign is missing): name one that may", file)
	}
	if now := a.now(); now.Before(c.NotBefore) || now.After(c.NotAfter) {
		return fmt.Errorf("certificate %s is valid from %s to %s, and now is %s: renew it, or set the clock right",
			file, c.NotBefore.Format(time.RFC3339), c.NotAfter.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	if err := checkDomain(c, a.cfg.TrustDomain); err != nil {
		return fmt.Errorf("certificate %s is of another mesh: %w: name a CA of this trust domain", file, err)
	}
	if err := checkConstraints(c, a.cfg.TrustDomain); err != nil {
		return fmt.Errorf("certificate %s may not sign for this mesh: %w: name one without the constraint, or one that permits %s", file, err, a.cfg.TrustDomain.Name())
	}
	if err := checkCAKey(c.PublicKey); err != nil {
		return fmt.Errorf("certificate %s: %w: make the CA with ECDSA P-256 or P-384, or RSA of 2048 to 8192 bits",
			file, err)
	}
	return nil
}

func checkConstraints(c *x509.Certificate, td spiffe.TrustDomain) error {
	covers := func(constraint string) bool { // RFC 5280 §4.2.1.10
		if suffix, ok := strings.CutPrefix(constraint, "."); ok {
			return strings.HasSuffix(td.Name(), "."+suffix)
		}
		return strings.EqualFold(td.Name(), constraint)
	}
	if len(c.PermittedURIDomains) > 0 && !slices.ContainsFunc(c.PermittedURIDomains, covers) {
		return fmt.Errorf("its name constraints permit only %s", strings.Join(c.PermittedURIDomains, ", "))
	}
	if slices.ContainsFunc(c.ExcludedURIDomains, covers) {
		return fmt.Errorf("its name constraints exclude %s", strings.Join(c.ExcludedURIDomains, ", "))
	}
	return nil
}

func checkCAKey(pub crypto.PublicKey) error {
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() || k.Curve == elliptic.P384() {
			return nil
		}
		return fmt.Errorf("its key is of curve %s", k.Curve.Params().Name)
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n < 2048 || n > 8192 {
			return fmt.Errorf("its RSA key has %d bits", n)
		}
		return nil
	default:
		return fmt.Errorf("its key is of a kind that Envoy does not verify by default (%T)", pub)
	}
}

// selfTest signs and verifies a throw-away certificate, to find any other fault in the operator's CA that would make
// the mesh's certificates invalid.
func (a *Authority) selfTest(m *material, file string) error {
	now := a.now()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	if m.signer == nil {
		cert, err := signCA(intermediateTemplate(a.cfg, m.roots[0], now), m.roots[0], key.Public(), m.rootKey)
		if err != nil {
			return fmt.Errorf("sign an intermediate under %s: %w", file, err)
		}
		m = m.signing(cert, key)
	}
	t := leafTemplate(a.cfg, m.signer, leaf{id: spiffe.Control(a.cfg.TrustDomain), ttl: time.Minute}, newSerial(), now)
	tried, err := signCA(t, m.signer, key.Public(), m.key)
	if err != nil {
		return fmt.Errorf("sign a certificate under %s: %w", file, err)
	}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if _, err := verify([]*x509.Certificate{tried, m.signer}, m.pool, now, usage); err != nil {
			return fmt.Errorf("a certificate signed under %s does not verify, so nobody in the mesh could use it: fix what is named here in that CA: %w", file, err)
		}
	}
	return nil
}

// readPair reads a certificate and its private key.
func readPair(certFile, keyFile string) (*x509.Certificate, crypto.Signer, error) {
	cert, err := readCert(certFile)
	if err != nil {
		return nil, nil, err
	}
	key, err := readKey(keyFile)
	if err != nil {
		return nil, nil, err
	}
	if !samePublic(cert.PublicKey, key.Public()) {
		return nil, nil, fmt.Errorf("key %s is not the key of certificate %s: name the two that belong together",
			keyFile, certFile)
	}
	return cert, key, nil
}

func readCert(file string) (*x509.Certificate, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read certificate: %w", err)
	}
	block, rest := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil,
			fmt.Errorf("file %s does not begin with a PEM block CERTIFICATE: name the certificate's file, in PEM form",
				file)
	}
	if more, _ := pem.Decode(rest); more != nil {
		return nil, fmt.Errorf("file %s holds more than one PEM block: leave in it the one certificate that is meant",
			file)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("certificate %s does not parse: %w", file, err)
	}
	return c, nil
}

// readKey reads a private key. Its errors never quote the file.
func readKey(file string) (crypto.Signer, error) {
	text, err := readPrivate(file)
	if err != nil {
		return nil, fmt.Errorf("read private key: %w", err)
	}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		key, err := parseKey(block)
		if err != nil {
			return nil, fmt.Errorf("private key %s: %w", file, err)
		}
		if key != nil {
			return key, nil
		}
	}
	return nil, fmt.Errorf("file %s holds no private key in PEM form: name the key's file", file)
}

// parseKey returns nil without an error for a block that is not a key, such as "EC PARAMETERS".
func parseKey(block *pem.Block) (crypto.Signer, error) {
	if strings.Contains(block.Type, "ENCRYPTED") || block.Headers["DEK-Info"] != "" {
		return nil,
			errors.New("it is encrypted, and nobody would be there to type its password: write it unencrypted with `openssl pkey`, mode 0600")
	}
	if !strings.HasSuffix(block.Type, "PRIVATE KEY") {
		return nil, nil
	}
	for _, parse := range []func([]byte) (any, error){
		x509.ParsePKCS8PrivateKey,
		func(b []byte) (any, error) { return x509.ParseECPrivateKey(b) },
		func(b []byte) (any, error) { return x509.ParsePKCS1PrivateKey(b) },
	} {
		if k, err := parse(block.Bytes); err == nil {
			if signer, ok := k.(crypto.Signer); ok {
				return signer, nil
			}
		}
	}
	return nil, errors.New("it does not parse as PKCS #8, SEC 1 or PKCS #1: export it again with `openssl pkey`")
}
