package spiffe

import (
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// LeafID returns the SPIFFE ID of a leaf certificate (X.509-SVID §2, §4.1, §5.2). The certificate must have exactly one
// URI SAN, a SPIFFE ID with a path, and must not be a CA. The caller must verify the chain.
func LeafID(c *x509.Certificate) (ID, error) {
	if c.IsCA || c.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0 {
		return ID{}, errors.New("a CA certificate was shown in place of a leaf")
	}
	if len(c.URIs) != 1 {
		return ID{}, fmt.Errorf("certificate has %d URI names, an X.509-SVID has exactly one", len(c.URIs))
	}
	id, err := spiffeid.FromURI(c.URIs[0])
	if err != nil {
		return ID{}, fmt.Errorf("certificate name %q: %w", c.URIs[0], err)
	}
	if id.Path() == "" {
		return ID{}, fmt.Errorf("certificate name %q is a trust domain, not somebody in it", id)
	}
	return id, nil
}
