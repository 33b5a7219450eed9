package demo

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/node/identity"
	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/wellknown"
)

// accepted starts the result of tryHandshake when both sides completed the handshake.
const accepted = "accepted"

// gatewayID is the identity that cards expects of its peer's gateway.
const gatewayID = "spiffe://retail.example/ns/isthmus-system/sa/" + gatewayServiceAccount

// federationSNI returns the server name with which retail asks cards for a service in namespace default.
func federationSNI(service string, w *world) string {
	return service + ".default.retail.fed." + w.cards().trustDomain
}

// impostorRefused presents a certificate with the right names from a root of its own.
func impostorRefused(ctx context.Context, w *world) (string, error) {
	forged, err := forge(gatewayID)
	if err != nil {
		return "", err
	}
	address := hostPort(w.cards().outer, wellknown.FederationPort)
	var seen []string
	for _, try := range []struct {
		what, sni string
		certs     []tls.Certificate
	}{
		{"own root", federationSNI("payments", w), []tls.Certificate{forged}},
		{"own root, control name", "control.retail.fed." + w.cards().trustDomain, []tls.Certificate{forged}},
		{"no certificate", federationSNI("payments", w), nil},
	} {
		got, err := tryHandshake(ctx, w.plan.stranger(), address, try.sni, try.certs)
		if err != nil {
			return "", err
		}
		if strings.HasPrefix(got, accepted) {
			return "", fmt.Errorf("%s: %s", try.what, got)
		}
		seen = append(seen, try.what+": "+got)
	}
	return strings.Join(seen, "; "), nil
}

// wrongSNIRefused uses retail's real gateway identity and asks for names that are not exported to retail. The exported
// name works, which shows that the certificate is valid.
func wrongSNIRefused(ctx context.Context, w *world) (string, error) {
	svid, err := w.gatewayIdentity(ctx, w.retail())
	if err != nil {
		return "", err
	}
	from, address := w.plan.gatewayNetns(w.retail()), hostPort(w.cards().outer, wellknown.FederationPort)
	certs := []tls.Certificate{*svid.TLS()}
	right, err := tryHandshake(ctx, from, address, federationSNI("payments", w), certs)
	if err != nil {
		return "", err
	}
	if !strings.HasPrefix(right, accepted) {
		return "", fmt.Errorf("even the right name is refused: %s", right)
	}
	var seen []string
	for _, sni := range []string{
		federationSNI("tokens", w), "payments.default.other.fed.cards.example", "payments.default.svc.cluster.local",
		"",
	} {
		got, err := tryHandshake(ctx, from, address, sni, certs)
		if err != nil {
			return "", err
		}
		if strings.HasPrefix(got, accepted) {
			return "", fmt.Errorf("%q: %s", sni, got)
		}
		if !slices.Contains(seen, got) {
			seen = append(seen, got)
		}
	}
	return fmt.Sprintf("payments %s; tokens and 3 other names: %s", right, strings.Join(seen, ", ")), nil
}

// tryHandshake tries a TLS handshake from a namespace and describes the result. With TLS 1.3 the client completes
// before the server has checked its certificate, so it counts as accepted only after the server has answered. The
// server's certificate is not checked.
func tryHandshake(ctx context.Context, from, address, sni string, certs []tls.Certificate) (string, error) {
	conn, err := dial(ctx, from, address)
	if err != nil {
		return "", fmt.Errorf("connect to the gateway: %w", err)
	}
	return hear(conn, sni, certs), nil
}

func hearTLS(conn net.Conn, sni string) string { return hear(conn, sni, nil) }

func hear(raw net.Conn, sni string, certs []tls.Certificate) string {
	defer raw.Close()
	_ = raw.SetDeadline(time.Now().Add(3 * time.Second)) // a dead connection shows in the handshake
	conn := tls.Client(raw, &tls.Config{
		// an attacker does not check the server
		MinVersion: tls.VersionTLS12, ServerName: sni, InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"},
		// An attacker sends its certificate whatever roots the server asks for.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if len(certs) == 0 {
				return &tls.Certificate{}, nil
			}
			return &certs[0], nil
		},
	})
	if err := conn.Handshake(); err != nil {
		return alert(err)
	}
	hello := "GET / HTTP/1.1\r\nHost: payments\r\n\r\n"
	if conn.ConnectionState().NegotiatedProtocol == "h2" {
		hello = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00" // preface, empty SETTINGS
	}
	_, writeErr := conn.Write([]byte(hello))
	if _, err := conn.Read(make([]byte, 1)); err != nil { // read the server's alert even if it no longer reads
		return alert(err)
	}
	if writeErr != nil {
		return alert(writeErr)
	}
	return fmt.Sprintf("%s (%s)", accepted, tls.VersionName(conn.ConnectionState().Version))
}

func alert(err error) string {
	switch text := cause(err); {
	case strings.HasPrefix(text, "tls: "):
		return strings.TrimPrefix(text, "tls: ")
	case strings.Contains(text, "EOF"):
		return "closed"
	default:
		return text
	}
}

// forge issues a certificate for a SPIFFE ID under a new root.
func forge(id string) (tls.Certificate, error) {
	uri, err := url.Parse(id)
	if err != nil {
		return tls.Certificate{}, err
	}
	now := time.Now()
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "retail.example"}, NotBefore: now.Add(-time.Hour),
		NotAfter: now.Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		URIs: []*url.URL{{Scheme: "spiffe", Host: "retail.example"}},
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		URIs: []*url.URL{uri}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	rootKey, rootErr := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	leafKey, leafErr := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err := errors.Join(rootErr, leafErr); err != nil {
		return tls.Certificate{}, err
	}
	rootDER, rootErr := x509.CreateCertificate(rand.Reader, root, root, rootKey.Public(), rootKey)
	leafDER, leafErr := x509.CreateCertificate(rand.Reader, leaf, root, leafKey.Public(), rootKey)
	if err := errors.Join(rootErr, leafErr); err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{leafDER, rootDER}, PrivateKey: crypto.Signer(leafKey)}, nil
}

// gatewayIdentity returns the gateway identity of mesh m with a new key. The control plane issues it to the holder of
// the gateway agent's credentials, which root on this machine can read.
func (w *world) gatewayIdentity(ctx context.Context, m mesh) (*identity.SVID, error) {
	agent, err := identity.Load(w.files.mesh(m.name, "gateway", "state", "identity.pem"))
	if err != nil {
		return nil, err
	}
	key, csr, err := identity.NewRequest()
	if err != nil {
		return nil, err
	}
	address := hostPort(m.host, wellknown.ControlPort)
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithAuthority("control"),
		grpc.WithTransportCredentials(credentials.NewTLS(identity.ControlTLS(func() *identity.SVID { return agent }))),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return dial(ctx, w.plan.hostNetns(m), address)
		}))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	r, err := agentapi.Client{Conn: conn}.Sign(ctx, &agentapi.SignRequest{
		Namespace: spiffe.SystemNamespace, ServiceAccount: gatewayServiceAccount, CSR: csr,
	})
	if err != nil {
		return nil, fmt.Errorf("get the gateway's identity certified: %w", err)
	}
	return identity.NewSVID(key, r.Chain, r.Roots, time.Now())
}
