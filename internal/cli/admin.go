package cli

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/agentapi"
)

func (a *app) adminCmd() *cobra.Command {
	return family("admin", "Administrators who connect from elsewhere", a.adminCertCmd(), a.adminListCmd(),
		a.adminRevokeCmd())
}

func (a *app) adminCertCmd() *cobra.Command {
	var out string
	var ttl time.Duration
	cmd := &cobra.Command{
		Use:   "cert NAME",
		Short: "Credentials for an administrator elsewhere",
		Long: `Credentials with which an administrator reaches this control plane over mutual TLS. The private key is made here and
never leaves this file; the control plane sees a signing request. isthmus admin revoke ends them before their time.`,
		Example: `  isthmus admin cert ada --out ada.pem
  isthmus status --control 10.1.0.2:15012 --credentials ada.pem`,
		Args: oneArg("the administrator's name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if out == "" {
				return usage(cmd,
					"--out is missing: the credentials hold a private key and go into a file of their own")
			}
			if err := checkOut(out); err != nil {
				return err
			}
			key, csr, err := newRequest(args[0])
			if err != nil {
				return err
			}
			resp, err := ask[adminapi.AdminCertRequest, agentapi.SignResponse](cmd.Context(), a, "AdminCert",
				&adminapi.AdminCertRequest{Name: args[0], CSR: csr, TTL: ttl})
			if err != nil {
				return err
			}
			content, err := credentialsPEM(key, resp)
			if err != nil {
				return err
			}
			if err := writeSecret(out, content); err != nil {
				return err
			}
			fmt.Fprintf(a.Err,
				"Wrote the credentials of %s to %s (mode 0600).\n  Next: isthmus status --control HOST:15012 --credentials %s\n", args[0], out, out)
			return nil
		},
	}
	cmd.Flags().DurationVar(&ttl, "ttl", 8*time.Hour, "how long they are valid, at most 24h")
	cmd.Flags().StringVar(&out, "out", "", "new file for key and certificates, mode 0600 (required)")
	return a.client(cmd)
}

func newRequest(name string) (key *ecdsa.PrivateKey, csr []byte, err error) {
	key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make key: %w", err)
	}
	csr, err = x509.CreateCertificateRequest(rand.Reader,
		&x509.CertificateRequest{Subject: pkix.Name{CommonName: name}}, key)
	if err != nil {
		return nil, nil, fmt.Errorf("make signing request: %w", err)
	}
	return key, csr, nil
}

// credentialsPEM returns the key, the chain leaf first, and the mesh's roots.
func credentialsPEM(key *ecdsa.PrivateKey, s *agentapi.SignResponse) (string, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", fmt.Errorf("write key: %w", err)
	}
	var b bytes.Buffer
	blocks := []*pem.Block{{Type: "PRIVATE KEY", Bytes: der}}
	for _, cert := range s.Chain {
		blocks = append(blocks, &pem.Block{Type: "CERTIFICATE", Bytes: cert})
	}
	for _, block := range blocks {
		if err := pem.Encode(&b, block); err != nil {
			return "", fmt.Errorf("write credentials: %w", err)
		}
	}
	b.Write(s.Roots)
	return b.String(), nil
}
