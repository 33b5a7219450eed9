package identity

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"time"

	"isthmus.dev/isthmus/internal/durable"
)

// The blocks of an identity file, in this order.
const (
	blockKey   = "PRIVATE KEY"
	blockChain = "CERTIFICATE"
	blockRoot  = "ISTHMUS ROOT CERTIFICATE"
)

// Save writes the node's identity: one file, mode 0600, replaced whole.
func Save(path string, s *SVID) error {
	text, err := s.KeyPEM()
	if err != nil {
		return err
	}
	text = append(text, encodePEM(s.Chain)...)
	for _, r := range s.Roots {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: blockRoot, Bytes: r.Raw})...)
	}
	if err := durable.WriteFile(path, text); err != nil {
		return fmt.Errorf("save node identity: %w", err)
	}
	return nil
}

// Load reads what Save wrote. The error is os.ErrNotExist when there is none.
func Load(path string) (*SVID, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("load node identity: %w", err)
	}
	st, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("load node identity: %w", err)
	}
	s, err := decode(text, st.ModTime())
	if err != nil {
		return nil,
			fmt.Errorf("node identity %s is damaged (%w): delete it and join again with a new token (`isthmus token create --node NAME`)", path, err)
	}
	return s, nil
}

// decode takes the file's time as the time at which the certificate came.
func decode(text []byte, received time.Time) (*SVID, error) {
	var (
		key   *ecdsa.PrivateKey
		chain [][]byte
		roots []byte
	)
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		switch block.Type {
		case blockKey:
			k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				return nil, err
			}
			key, _ = k.(*ecdsa.PrivateKey)
		case blockChain:
			chain = append(chain, block.Bytes)
		case blockRoot:
			roots = append(roots, pem.EncodeToMemory(&pem.Block{Type: blockChain, Bytes: block.Bytes})...)
		}
	}
	if key == nil {
		return nil, errors.New("it holds no ECDSA key")
	}
	c, err := parseChain(chain)
	if err != nil {
		return nil, err
	}
	if received.After(c[0].NotAfter) || received.Before(c[0].NotBefore) {
		received = c[0].NotBefore // the file's time is no guide
	}
	return NewSVID(key, chain, roots, received)
}
