package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"

	"isthmus.dev/isthmus/internal/spiffe"
)

// AttestTLS returns the TLS configuration of an agent without a certificate. The server must chain to the pinned root
// and be the control plane of its trust domain.
func AttestTLS(t Token) *tls.Config {
	return clientTLS(func(chain []*x509.Certificate) error {
		root, err := t.PinnedRoot(chain)
		if err != nil {
			return err
		}
		id, err := spiffe.LeafID(chain[0])
		if err != nil {
			return err
		}
		pool := x509.NewCertPool()
		pool.AddCert(root)
		return verifyControl(chain, pool, id.TrustDomain())
	})
}

// ControlTLS returns how an agent with a certificate meets the control plane: mutual TLS under the mesh's own roots.
// current is asked at each handshake.
func ControlTLS(current func() *SVID) *tls.Config {
	c := clientTLS(func(chain []*x509.Certificate) error {
		svid := current()
		if svid == nil {
			return errors.New("this agent has no certificate yet")
		}
		err := verifyControl(chain, svid.RootPool(), svid.ID.TrustDomain())
		if unknown := (x509.UnknownAuthorityError{}); errors.As(err, &unknown) {
			err = fmt.Errorf("%w; if the mesh's root was replaced without this node, delete identity.pem in its state directory and join again "+
				"with a new token (`isthmus token create --node NAME`)", err)
		}
		return err
	})
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		svid := current()
		if svid == nil {
			return nil, errors.New("this agent has no certificate yet")
		}
		return svid.TLS(), nil
	}
	return c
}

// clientTLS checks servers by their SPIFFE ID instead of a host name.
func clientTLS(verify func([]*x509.Certificate) error) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		SessionTicketsDisabled: true,
		// host names mean nothing here: VerifyConnection below checks the whole chain and the SPIFFE ID
		InsecureSkipVerify: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			if len(cs.PeerCertificates) == 0 {
				return errors.New("the server presents no certificate")
			}
			return verify(cs.PeerCertificates)
		},
	}
}

func verifyControl(chain []*x509.Certificate, roots *x509.CertPool, td spiffe.TrustDomain) error {
	id, err := spiffe.LeafID(chain[0])
	if err != nil {
		return err
	}
	if want := spiffe.Control(td); id != want {
		return fmt.Errorf("the server is %s, not the control plane %s: check control.addresses", id, want)
	}
	intermediates := x509.NewCertPool()
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	_, err = chain[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		return fmt.Errorf("verify the control plane's certificate: %w", err)
	}
	return nil
}
