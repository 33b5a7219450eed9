//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/node/identity"
)

// svid is the true identity of a workload under a key of ours: what a thief on the callers' node could make.
func (s *shop) svid(t *testing.T, m member) *tls.Certificate {
	t.Helper()
	if c := s.stolen[m.name]; c != nil && time.Until(c.Leaf.NotAfter) > 4*time.Second {
		return c
	}
	agent, err := identity.Load(s.path("front", "state", "identity.pem"))
	need(t, err)
	key, csr, err := identity.NewRequest()
	need(t, err)
	conn, err := grpc.NewClient("passthrough:///"+shopHost+":15012", grpc.WithAuthority("control"),
		grpc.WithTransportCredentials(credentials.NewTLS(identity.ControlTLS(func() *identity.SVID { return agent }))),
		grpc.WithContextDialer(func(_ context.Context, address string) (net.Conn,
			error,
		) {
			return s.dial("host", address)
		}))
	need(t, err)
	defer conn.Close()
	r, err := agentapi.Client{Conn: conn}.Sign(t.Context(),
		&agentapi.SignRequest{Namespace: m.namespace, ServiceAccount: m.account(), CSR: csr})
	need(t, err)
	v, err := identity.NewSVID(key, r.Chain, r.Roots, time.Now())
	need(t, err)
	c := v.TLS()
	c.Leaf = v.Leaf()
	s.stolen[m.name] = c
	return c
}

func caller(name string) member {
	for _, m := range callers {
		if m.name == name {
			return m
		}
	}
	panic("no such caller: " + name)
}

// meshTLS is how a node's Envoy greets another's.
func meshTLS(c *tls.Certificate) *tls.Config {
	conf := &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, NextProtos: []string{"isthmus"}}
	if c != nil {
		// Shown whatever authorities the server names.
		conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c, nil }
	}
	return conf
}

// secretly opens mutual TLS to a server's own address past the capture of the caller's namespace, and so past all that
// the caller's Envoy knows and enforces.
func (s *shop) secretly(from, address string, conf *tls.Config) (*tls.Conn, error) {
	c, err := s.bypass(from, address)
	if err != nil {
		return nil, err
	}
	c.SetDeadline(time.Now().Add(3 * time.Second))
	tc := tls.Client(c, conf)
	if err := tc.Handshake(); err != nil {
		c.Close()
		return nil, err
	}
	return tc, nil
}

// secretRequest is a request made so.
func (s *shop) secretRequest(t *testing.T, from, address, host, method, path string, headers ...string) reply {
	t.Helper()
	c, err := s.secretly(from, address, meshTLS(s.svid(t, caller(from))))
	if err != nil {
		return reply{err: err}
	}
	defer c.Close()
	l := &line{Conn: c, in: bufio.NewReader(c), host: host, say: s.canary}
	return l.request(method, path, headers...)
}

// unheard says how a greeting was refused; an error of its own means that something was heard or that nothing refused.
// In TLS 1.3 the client is done before the server has looked at its certificate, so the refusal comes with the first
// read.
func (s *shop) unheard(from, address string, conf *tls.Config) (string, error) {
	c, err := s.dial(from, address)
	if from != outsider {
		c, err = s.bypass(from, address)
	}
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(3 * time.Second))
	tc := tls.Client(c, conf)
	if err := tc.Handshake(); err != nil {
		return err.Error(), nil
	}
	_, err = tc.Write([]byte("GET /open HTTP/1.1\r\nhost: web\r\n\r\n"))
	text, heard := hear(tc, 2*time.Second) // also when the server has hung up: its reason may be there still
	if text != "" {
		return "", errors.New("heard " + text)
	}
	if heard != nil {
		err = heard
	}
	if err == nil || isTimeout(err) {
		return "", errors.New("the connection stays open")
	}
	return err.Error(), nil
}

// forgery is a certificate for id by an authority of our own making, or by none.
func forgery(t *testing.T, id string, selfSigned bool) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	need(t, err)
	uri, err := url.Parse(id)
	need(t, err)
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(4711), URIs: []*url.URL{uri}, NotBefore: time.Now().Add(-time.Minute),
		NotAfter:              time.Now().Add(time.Hour),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	if selfSigned {
		der, err := x509.CreateCertificate(rand.Reader, leaf, leaf, &key.PublicKey, key)
		need(t, err)
		return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	}
	rootKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	need(t, err)
	td, _, _ := strings.Cut(strings.TrimPrefix(id, "spiffe://"), "/")
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: td + " root"},
		URIs:      []*url.URL{{Scheme: "spiffe", Host: td}},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour), IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	rootDER, err := x509.CreateCertificate(rand.Reader, root, root, &rootKey.PublicKey, rootKey)
	need(t, err)
	der, err := x509.CreateCertificate(rand.Reader, leaf, root, &key.PublicKey, rootKey)
	need(t, err)
	return &tls.Certificate{Certificate: [][]byte{der, rootDER}, PrivateKey: key}
}
