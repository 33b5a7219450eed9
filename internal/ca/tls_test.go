package ca_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/ca"
	"isthmus.dev/isthmus/internal/spiffe"
)

// handshake joins a server and a client over loopback. It returns whom the server saw, and what each side says.
func handshake(
	t *testing.T, server, client *tls.Config,
) (seen spiffe.ID, state tls.ConnectionState, serverErr, clientErr error) {
	t.Helper()
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	defer l.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err != nil {
			serverErr = err
			return
		}
		defer c.Close()
		serverErr = c.SetDeadline(time.Now().Add(5 * time.Second))
		s := tls.Server(c, server)
		if serverErr = errors.Join(serverErr, s.Handshake()); serverErr != nil {
			return
		}
		seen, _ = ca.PeerID(s.ConnectionState())
		_, serverErr = s.Write([]byte("x"))
	}()
	raw := must(net.Dial("tcp", l.Addr().String()))
	defer raw.Close()
	check(t, raw.SetDeadline(time.Now().Add(5*time.Second)))
	c := tls.Client(raw, client)
	if clientErr = c.Handshake(); clientErr == nil {
		// TLS 1.3 refuses client certificates after the client's handshake
		_, clientErr = io.ReadFull(c, make([]byte, 1))
	}
	state = c.ConnectionState()
	raw.Close()
	<-done
	return seen, state, serverErr, clientErr
}

func TestMutualTLS(t *testing.T) {
	a := newBench(t).start(t)
	control := spiffe.Control(cards)
	node := must(spiffe.Node(cards, "n1"))
	s := must(a.Identity(t.Context(), control, "control.cards.example"))
	c := must(a.Identity(t.Context(), node))
	seen, state, serverErr, clientErr := handshake(t, a.ServerTLS(s, "h2"), withProtos(a.ClientTLS(c, control), "h2"))
	check(t, errors.Join(serverErr, clientErr))
	if seen != node {
		t.Errorf("the server saw %s", seen)
	}
	if state.Version != tls.VersionTLS13 || state.NegotiatedProtocol != "h2" || state.DidResume {
		t.Errorf("TLS %x, protocol %q, resumed %v", state.Version, state.NegotiatedProtocol, state.DidResume)
	}
	if n := len(state.PeerCertificates); n != 3 ||
		spiffe.Fingerprint(state.PeerCertificates[2]) != a.RootFingerprint() {
		t.Errorf("the server showed %d certificates, want leaf, intermediate and root", n)
	}
	if got := state.PeerCertificates[0].DNSNames; len(got) != 1 || got[0] != "control.cards.example" {
		t.Errorf("DNS names %v", got)
	}
}

func withProtos(c *tls.Config, protos ...string) *tls.Config {
	c.NextProtos = protos
	return c
}

func TestTLSRefusals(t *testing.T) {
	b, foreign := newBench(t), newBench(t)
	a, f := b.start(t), foreign.start(t) // the same names, another root
	control, node := spiffe.Control(cards), must(spiffe.Node(cards, "n1"))
	s, n := must(a.Identity(t.Context(), control)), must(a.Identity(t.Context(), node))
	impostor, fnode := must(f.Identity(t.Context(), control)), must(f.Identity(t.Context(), node))
	old := staticCert(t, n)
	later := func() time.Time { return noon.Add(2 * time.Hour) }

	for _, test := range []struct {
		name           string
		server, client *tls.Config
		want           string
	}{
		{
			"foreign client", a.ServerTLS(s),
			ca.Client{
				Roots: a.Roots, Certificate: fnode.GetClientCertificate, Expect: []spiffe.ID{control}, Now: b.now,
			}.TLS(), "unknown authority",
		},
		{"foreign server", f.ServerTLS(impostor), a.ClientTLS(n, control), "unknown authority"},
		{
			"another server of the mesh", a.ServerTLS(n), a.ClientTLS(n, control),
			"the server is spiffe://cards.example/isthmus/node/n1, expected was",
		},
		{"a client that expects nobody", a.ServerTLS(s), a.ClientTLS(n), "expected was []"},
		{
			"pinned root, impostor", f.ServerTLS(impostor), ca.PinnedTLS(a.RootFingerprint(), b.now),
			"the server does not show the root with SHA-256 " + a.RootFingerprint(),
		},
		{
			"pinned root, not the control plane", a.ServerTLS(n), ca.PinnedTLS(a.RootFingerprint(), b.now),
			"the server is spiffe://cards.example/isthmus/node/n1, not the control plane",
		},
		{"pinned leaf", a.ServerTLS(s), ca.PinnedTLS(leafFingerprint(t, s), b.now), "does not show the root"},
		{
			"TLS 1.2", a.ServerTLS(s), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12},
			"protocol version",
		},
		{
			"expired client", at(a.ServerTLS(s), later),
			ca.Client{Roots: a.Roots, Certificate: old, Expect: []spiffe.ID{control}, Now: later}.TLS(), "expired",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, _, serverErr, clientErr := handshake(t, test.server, test.client)
			if clientErr == nil {
				t.Fatal("the client was served")
			}
			if all := errors.Join(serverErr, clientErr).Error(); !strings.Contains(all, test.want) {
				t.Errorf("got %v\nwant it to say %q", all, test.want)
			}
		})
	}
}

// A root shown by somebody who does not hold a key under it.
func TestPinnedRootMustHaveSigned(t *testing.T) {
	b, foreign := newBench(t), newBench(t)
	a, f := b.start(t), foreign.start(t)
	impostor := must(f.Identity(t.Context(), spiffe.Control(cards)))
	cfg := &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			c, err := impostor.GetCertificate(h)
			if err != nil {
				return nil, err
			}
			borrowed := *c
			borrowed.Certificate = [][]byte{c.Certificate[0], c.Certificate[1], parsePEM(t, a.Roots()).Raw}
			return &borrowed, nil
		},
	}
	_, _, _, err := handshake(t, cfg, ca.PinnedTLS(a.RootFingerprint(), b.now))
	if err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("got %v", err)
	}
}

func TestClientWithoutCertificateIsSeenAsNobody(t *testing.T) {
	b := newBench(t)
	a := b.start(t)
	s := must(a.Identity(t.Context(), spiffe.Control(cards)))
	seen, state, serverErr, clientErr := handshake(t, a.ServerTLS(s), ca.PinnedTLS(a.RootFingerprint(), b.now))
	check(t, errors.Join(serverErr, clientErr))
	if !seen.IsZero() {
		t.Errorf("the server saw %s", seen)
	}
	if _, err := ca.PeerID(state); err == nil {
		t.Error("PeerID of a connection without verified chains")
	}
}

// A client of another trust domain under the same root, as an operator's CA may sign for several meshes.
func TestOtherTrustDomainUnderTheSameRoot(t *testing.T) {
	o := newOperatorCA(t, false)
	o.write(t)
	b, other := newBench(t), newBench(t)
	cfg, ocfg := b.config(), other.config()
	cfg.Operator, ocfg.Operator = o.files, o.files
	ocfg.TrustDomain = must(spiffe.ParseTrustDomain("retail.example"))
	a, r := must(ca.New(t.Context(), cfg)), must(ca.New(t.Context(), ocfg))
	control := spiffe.Control(cards)
	s := must(a.Identity(t.Context(), control))
	c := must(r.Identity(t.Context(), must(spiffe.Node(ocfg.TrustDomain, "n1"))))
	_, _, serverErr, _ := handshake(t, a.ServerTLS(s), a.ClientTLS(c, control))
	if serverErr == nil || !strings.Contains(serverErr.Error(), "is not of trust domain cards.example") {
		t.Errorf("got %v", serverErr)
	}
}

func TestOwnIdentityIsRenewed(t *testing.T) {
	b := newBench(t)
	a := b.start(t)
	s := must(a.Identity(t.Context(), spiffe.Control(cards)))
	first := leafFingerprint(t, s)
	b.set(noon.Add(29 * time.Minute))
	if leafFingerprint(t, s) != first {
		t.Error("renewed too early")
	}
	b.set(noon.Add(31 * time.Minute))
	second := leafFingerprint(t, s)
	if second == first {
		t.Error("not renewed after half its life")
	}
	b.set(noon.Add(-time.Hour)) // the clock is stepped back
	if leafFingerprint(t, s) == second {
		t.Error("a certificate that is not valid yet is in use")
	}
}

func leafFingerprint(t *testing.T, s *ca.Source) string {
	t.Helper()
	c, err := s.GetCertificate(&tls.ClientHelloInfo{})
	check(t, err)
	return spiffe.Fingerprint(must(x509.ParseCertificate(c.Certificate[0])))
}

// staticCert goes on showing the certificate of now.
func staticCert(t *testing.T, s *ca.Source) func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	t.Helper()
	c := must(s.GetCertificate(&tls.ClientHelloInfo{}))
	return func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c, nil }
}

// at is a server whose clock says something else.
func at(c *tls.Config, now func() time.Time) *tls.Config {
	inner := c.GetConfigForClient
	c.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		n, err := inner(h)
		if err == nil {
			n.Time = now
		}
		return n, err
	}
	return c
}
