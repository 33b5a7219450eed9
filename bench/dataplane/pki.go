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

// Identities of hand-written Envoys: of the two ends, and of the gateways between them where they are in two meshes.
const (
	callerID = "spiffe://bench.example/ns/default/sa/caller"
	calleeID = "spiffe://bench.example/ns/default/sa/callee"

	gatewayID     = "spiffe://bench.example/ns/default/sa/gateway"
	peerGatewayID = "spiffe://peer.example/ns/default/sa/gateway"
	peerCalleeID  = "spiffe://peer.example/ns/default/sa/callee"
)

// peerDir holds the certificates of the other mesh.
func peerDir(dir string) string { return filepath.Join(dir, "peer") }

// writeCertificates makes the certificates of both meshes: in each folder a root, root.pem, and for each workload
// <name>.pem and <name>.key.
func writeCertificates(dir string) error {
	own := map[string]string{"caller": callerID, "callee": calleeID, "gateway": gatewayID}
	if err := writeMesh(dir, "bench.example", own); err != nil {
		return err
	}
	return writeMesh(peerDir(dir), "peer.example", map[string]string{"gateway": peerGatewayID, "callee": peerCalleeID})
}

func writeMesh(dir, trustDomain string, leaves map[string]string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the folder of certificates: %w", err)
	}
	rootKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make the root's key: %w", err)
	}
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		URIs: []*url.URL{{Scheme: "spiffe", Host: trustDomain}},
	}
	der, err := x509.CreateCertificate(rand.Reader, root, root, rootKey.Public(), rootKey)
	if err != nil {
		return fmt.Errorf("make the root: %w", err)
	}
	if err := writePEM(filepath.Join(dir, "root.pem"), "CERTIFICATE", der); err != nil {
		return err
	}
	for name, id := range leaves {
		if err := writeLeaf(filepath.Join(dir, name), id, root, rootKey); err != nil {
			return fmt.Errorf("make the certificate of %s: %w", id, err)
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
