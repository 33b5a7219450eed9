package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

// Identities of the two ends.
const (
	callerID = "spiffe://bench.example/ns/default/sa/caller"
	calleeID = "spiffe://bench.example/ns/default/sa/callee"
)

// writeCertificates makes a root and a certificate for each end, as files root.pem, caller.pem, caller.key, callee.pem,
// callee.key.
func writeCertificates(dir string) error {
	rootKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make the root's key: %w", err)
	}
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		URIs: []*url.URL{{Scheme: "spiffe", Host: "bench.example"}},
	}
	der, err := x509.CreateCertificate(rand.Reader, root, root, rootKey.Public(), rootKey)
	if err != nil {
		return fmt.Errorf("make the root: %w", err)
	}
	if err := writePEM(filepath.Join(dir, "root.pem"), "CERTIFICATE", der); err != nil {
		return err
	}
	for name, id := range map[string]string{"caller": callerID, "callee": calleeID} {
		if err := writeLeaf(filepath.Join(dir, name), id, root, rootKey); err != nil {
			return fmt.Errorf("make the certificate of the %s: %w", name, err)
		}
	}
	return nil
}

func writeLeaf(path, id string, root *x509.Certificate, rootKey *ecdsa.PrivateKey) error {
	uri, err := url.Parse(id)
	if err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotAfter: root.NotAfter, URIs: []*url.URL{uri},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, root, key.Public(), rootKey)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := writePEM(path+".pem", "CERTIFICATE", der); err != nil {
		return err
	}
	return writePEM(path+".key", "PRIVATE KEY", private)
}

func writePEM(path, typ string, der []byte) error {
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der}), 0o600); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
