//go:build e2e

package e2e

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/federation"
	"isthmus.dev/isthmus/internal/peerrules"
	"isthmus.dev/isthmus/internal/spiffe"
)

const inviterAddress = "192.0.2.77:15443"

// testPeering accepts and gives invitations through the real gateway, with an attacker on the wire who holds
// certificates of the other mesh.
func (g *gateway) testPeering(t *testing.T) {
	t.Run("accept", g.testAccept)
	t.Run("redeem", g.testRedeem)
}

// inviter answers at the address of an inviting mesh's gateway: with one certificate, and behind it with another.
type inviter struct {
	ca      *gwCA
	token   federation.Token
	mu      sync.Mutex // guards the rest
	gateway *tls.Certificate
	control *tls.Certificate
	heard   bytes.Buffer
}

func (i *inviter) shows(gateway, control *tls.Certificate) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.gateway, i.control = gateway, control
	i.heard.Reset()
}

func (i *inviter) told() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.heard.String()
}

// self is how the inviter introduces itself.
func (i *inviter) self(t *testing.T) []byte {
	bundle, err := federation.Bundle{
		TrustDomain: i.token.TrustDomain, Roots: []*x509.Certificate{i.ca.cert}, Sequence: 1,
	}.Encode()
	must(t, err)
	doc, err := json.Marshal(map[string]any{
		"trustDomain": i.token.TrustDomain.Name(), "knownAs": i.token.KnownAs, "bundle": json.RawMessage(bundle),
		"gatewayAddresses": i.token.Addresses, "gatewayIDs": i.token.GatewayIDs,
	})
	must(t, err)
	return doc
}

func (i *inviter) serve(t *testing.T) {
	l, answer := gwListen(t, inviterAddress), i.self(t)
	t.Cleanup(func() { l.Close() })
	with := func(c *tls.Certificate, ask tls.ClientAuthType) *tls.Config {
		shown := tls.Certificate{
			Certificate: append(slices.Clone(c.Certificate), i.ca.cert.Raw),
			PrivateKey:  c.PrivateKey,
		}
		return &tls.Config{Certificates: []tls.Certificate{shown}, MinVersion: tls.VersionTLS13, ClientAuth: ask}
	}
	go func() {
		for {
			raw, err := l.Accept()
			if err != nil {
				return
			}
			i.mu.Lock()
			gateway, control := i.gateway, i.control
			i.mu.Unlock()
			go func() {
				defer raw.Close()
				raw.SetDeadline(time.Now().Add(5 * time.Second))
				inner := tls.Server(tls.Server(raw, with(gateway, tls.NoClientCert)),
					with(control, tls.RequireAnyClientCert))
				if inner.Handshake() != nil {
					return
				}
				seen := io.TeeReader(inner, lockedBy{&i.mu, &i.heard})
				r, err := http.ReadRequest(bufio.NewReader(seen))
				if err != nil {
					return
				}
				io.Copy(io.Discard, r.Body)
				fmt.Fprintf(inner, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(answer),
					answer)
			}()
		}
	}()
}

type lockedBy struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l lockedBy) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

// testAccept: home accepts an invitation, and somebody with a certificate of the inviter's mesh answers in the
// inviter's place.
func (g *gateway) testAccept(t *testing.T) {
	const (
		gatewayID = "spiffe://inviter.example/ns/isthmus-system/sa/edge"
		controlID = "spiffe://inviter.example/isthmus/control"
		secret    = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	)
	td, err := spiffe.ParseTrustDomain("inviter.example")
	must(t, err)
	i := &inviter{ca: newGwCA(t, "inviter")}
	parsed, err := federation.ParseSecret(secret)
	must(t, err)
	i.token = federation.Token{
		TrustDomain: td, Name: "inviter", KnownAs: "home",
		Addresses:  []netip.AddrPort{netip.MustParseAddrPort(inviterAddress)},
		GatewayIDs: []string{gatewayID}, InviteID: "00112233445566778899aabbccddeeff", Secret: parsed,
		Root: spiffe.Fingerprint(i.ca.cert),
		Fingerprint: peerrules.MeshFingerprint("inviter.example", []*x509.Certificate{i.ca.cert}, []string{gatewayID},
			[]string{inviterAddress}),
		Expires: time.Now().Add(10 * time.Minute),
	}
	genuine, control := i.ca.leaf(t, gatewayID), i.ca.leaf(t, controlID)
	i.shows(genuine, control)
	i.serve(t)
	accept := func() (*adminapi.PeerAcceptResponse, error) {
		return adminapi.Call[adminapi.PeerAcceptRequest, adminapi.PeerAcceptResponse](t.Context(), g.admin,
			"PeerAccept", &adminapi.PeerAcceptRequest{Token: i.token.Encode()})
	}
	for name, c := range map[string]struct {
		gateway, control *tls.Certificate
		says             string
	}{
		"a workload": {
			i.ca.leaf(t, "spiffe://inviter.example/ns/default/sa/web"), control,
			"with a certificate of the inviter's mesh",
		},
		"a node": {
			i.ca.leaf(t, "spiffe://inviter.example/isthmus/node/n1"), control,
			"with a certificate of the inviter's mesh",
		},
		"another gateway":         {i.ca.leaf(t, gatewayID+"2"), control, "with a certificate of the inviter's mesh"},
		"the gateway alone":       {genuine, genuine, "where only [" + controlID + "] may"},
		"the gateway, another CA": {newGwCA(t, "inviter").leaf(t, gatewayID), control, "no valid certificate"},
		"a workload at the inside": {
			genuine, i.ca.leaf(t, "spiffe://inviter.example/ns/default/sa/web"), "where only [" + controlID + "] may",
		},
	} {
		i.shows(c.gateway, c.control)
		_, err := accept()
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
		if told := i.told(); told != "" {
			t.Errorf("%s was told %q", name, told)
		}
	}
	i.shows(genuine, control)
	r, err := accept()
	must(t, err)
	if r.PeersFingerprint != i.token.Fingerprint || !strings.Contains(i.told(), secret) {
		t.Errorf("the genuine one: %+v", r)
	}
	_, err = adminapi.Call[adminapi.PeerRequest, adminapi.Empty](t.Context(), g.admin, "PeerRevoke",
		&adminapi.PeerRequest{Peer: "inviter"})
	must(t, err)
}

// testRedeem: home has given an invitation, and who accepts it must prove to be the control plane of the mesh that is
// introduced.
func (g *gateway) testRedeem(t *testing.T) {
	invited, err := adminapi.Call[adminapi.PeerInviteRequest, adminapi.PeerInviteResponse](t.Context(), g.admin,
		"PeerInvite",
		&adminapi.PeerInviteRequest{Peer: "guest", TTL: 5 * time.Minute})
	must(t, err)
	token, err := federation.ParseToken(invited.Token)
	must(t, err)
	if !slices.Equal(token.GatewayIDs, []string{gwGatewayID}) || token.Fingerprint != invited.Fingerprint {
		t.Errorf("the token names %v and %s", token.GatewayIDs, token.Fingerprint)
	}
	td, err := spiffe.ParseTrustDomain("guest.example")
	must(t, err)
	ca := newGwCA(t, "guest")
	bundle, err := federation.Bundle{TrustDomain: td, Roots: []*x509.Certificate{ca.cert}, Sequence: 1}.Encode()
	must(t, err)
	body, err := json.Marshal(map[string]any{
		"secret": token.Secret.Reveal(), "nonce": "ffeeddccbbaa99887766554433221100", "expects": token.Fingerprint,
		"trustDomain": "guest.example", "knownAs": "home", "bundle": json.RawMessage(bundle),
		"gatewayAddresses": []string{"192.0.2.78:15443"},
		"gatewayIDs":       []string{"spiffe://guest.example/ns/isthmus-system/sa/edge"},
	})
	must(t, err)
	redeem := func(control *tls.Certificate) gwAnswer {
		var a gwAnswer
		eventually(t, 5*time.Second, func() (err error) { // as soon as the gateway knows the invitation
			c := gwCaller{
				from: "192.0.2.78", to: gwIngress, sni: token.InviteID + ".invite.fed.home.example",
				control: control,
			}
			a, err = g.send(c,
				fmt.Sprintf("POST /v1/peering HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
					len(body), body))
			return err
		})
		return a
	}
	for name, control := range map[string]*tls.Certificate{
		"a workload":   ca.leaf(t, "spiffe://guest.example/ns/default/sa/web"),
		"a gateway":    ca.leaf(t, "spiffe://guest.example/ns/isthmus-system/sa/edge"),
		"another mesh": g.peers["north"].ca.leaf(t, "spiffe://north.example/isthmus/control"),
		"another root": newGwCA(t, "guest").leaf(t, "spiffe://guest.example/isthmus/control"),
	} {
		if a := redeem(control); a.Code != http.StatusForbidden || !strings.Contains(a.Body, "not the control plane") {
			t.Errorf("%s: %d %s", name, a.Code, a.Body)
		}
	}
	if a := redeem(ca.leaf(t, "spiffe://guest.example/isthmus/control")); a.Code != http.StatusOK {
		t.Fatalf("the genuine one afterwards: %d %s", a.Code, a.Body)
	}
	var r *adminapi.PeerListResponse
	eventually(t, 5*time.Second, func() (err error) {
		r, err = adminapi.Call[adminapi.PeerRequest, adminapi.PeerListResponse](t.Context(), g.admin, "PeerList",
			&adminapi.PeerRequest{Peer: "guest"})
		return err
	})
	want := peerrules.MeshFingerprint("guest.example", []*x509.Certificate{ca.cert},
		[]string{"spiffe://guest.example/ns/isthmus-system/sa/edge"}, []string{"192.0.2.78:15443"})
	if got := r.Peers[0]; got.PeersFingerprint != want || got.OwnFingerprint != invited.Fingerprint {
		t.Errorf("shown: %s and %s, want %s and %s", got.PeersFingerprint, got.OwnFingerprint, want,
			invited.Fingerprint)
	}
	_, err = adminapi.Call[adminapi.PeerRequest, adminapi.Empty](t.Context(), g.admin, "PeerRevoke",
		&adminapi.PeerRequest{Peer: "guest"})
	must(t, err)
}
