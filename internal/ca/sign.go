package ca

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/state"
)

// ErrCSR means that a certificate request was refused because of its content.
var ErrCSR = errors.New("certificate request refused")

// maxCSR is far more than a request with an RSA key of 8192 bits needs.
const maxCSR = 16 << 10

// Sign issues an X.509-SVID for id to the key in a certificate request (DER). The request must prove possession of the
// key; everything else in it is ignored. A ttl of 0 selects the default lifetime; no certificate outlives its issuer.
// The issuance is recorded durably before Sign returns. The result is a DER chain, leaf first, without the root.
func (a *Authority) Sign(
	ctx context.Context, csr []byte, id spiffe.ID, ttl time.Duration, by Holder,
) (chain [][]byte, err error) {
	pub, err := requestKey(csr)
	if err != nil {
		return nil, err
	}
	chain, _, err = a.issue(ctx, leaf{pub: pub, id: id, ttl: ttl, Holder: by})
	return chain, err
}

// Holder says who receives a certificate.
type Holder struct {
	Node       string // empty for administrators and the control plane
	Generation string // of that node or of the administrator's certificate
}

// leaf is a certificate to be issued.
type leaf struct {
	Holder
	pub crypto.PublicKey
	id  spiffe.ID
	dns []string
	ttl time.Duration
}

// issue returns the chain and the trust that it chains to. If another control plane of the mesh has changed the signing
// root, issue signs under the new one.
func (a *Authority) issue(ctx context.Context, l leaf) ([][]byte, *trust, error) {
	chain, on, err := a.issueUnder(ctx, l)
	if errors.Is(err, state.ErrSuperseded) {
		if err := a.Reload(ctx); err != nil {
			return nil, nil, err
		}
		return a.issueUnder(ctx, l)
	}
	return chain, on, err
}

func (a *Authority) issueUnder(ctx context.Context, l leaf) ([][]byte, *trust, error) {
	if !l.id.MemberOf(a.cfg.TrustDomain) || l.id.Path() == "" {
		return nil, nil, fmt.Errorf("sign %q: it names nobody in trust domain %s", l.id, a.cfg.TrustDomain.Name())
	}
	m, err := a.current(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("sign %s: %w", l.id, err)
	}
	serial, err := newLeafSerial(l.Generation)
	if err != nil {
		return nil, nil, fmt.Errorf("sign %s: %w", l.id, err)
	}
	t := leafTemplate(a.cfg, m.signer, l, serial, a.now())
	der, err := x509.CreateCertificate(rand.Reader, t, m.signer, l.pub, m.key)
	if err != nil {
		return nil, nil, fmt.Errorf("sign %s: %w", l.id, err)
	}
	record := state.Cert{
		Serial: fmt.Sprintf("%x", t.SerialNumber), SPIFFEID: l.id.String(), Node: l.Node,
		Fingerprint: spiffe.FingerprintOf(der),
		NotBefore:   t.NotBefore, NotAfter: t.NotAfter, Root: spiffe.Fingerprint(m.roots[0]),
	}
	var generation string // of a node; an administrator's certificate starts its own
	if l.Node != "" {
		generation = l.Generation
	}
	if err := a.cfg.Store.AddCert(ctx, record, generation); err != nil {
		return nil, nil, fmt.Errorf("record certificate of %s: %w", l.id, err)
	}
	return [][]byte{der, m.signer.Raw}, m.trust, nil
}

// requestKey returns the public key of a certificate request that proves possession of the private key.
func requestKey(der []byte) (crypto.PublicKey, error) {
	if len(der) > maxCSR {
		return nil, fmt.Errorf("%w: it has %d bytes, more than %d", ErrCSR, len(der), maxCSR)
	}
	r, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("%w: it does not parse: %w", ErrCSR, err)
	}
	if err := checkLeafKey(r.PublicKey); err != nil { // before the signature: a huge key is costly to verify
		return nil, err
	}
	if err := r.CheckSignature(); err != nil {
		return nil, fmt.Errorf("%w: it does not prove to hold its private key: %w", ErrCSR, err)
	}
	return r.PublicKey, nil
}

func checkLeafKey(pub crypto.PublicKey) error {
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() || k.Curve == elliptic.P384() {
			return nil
		}
	case ed25519.PublicKey:
		return nil
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n >= 2048 && n <= 8192 {
			return nil
		}
	}
	return fmt.Errorf("%w: use a key of ECDSA P-256 or P-384, Ed25519, or RSA of 2048 to 8192 bits", ErrCSR)
}
