package federation

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/logtest"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/state"
	"isthmus.dev/isthmus/internal/waittest"
	"isthmus.dev/isthmus/internal/wellknown"
)

func invite(t *testing.T, m *mesh, peer string) Token {
	t.Helper()
	i, err := m.Invite(t.Context(), peer, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	return i.Token
}

func refusedWith(t *testing.T, err error, says string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), says) {
		t.Fatalf("got %v, want %q", err, says)
	}
}

func TestTokenServesOnce(t *testing.T) {
	t.Parallel()
	cards, retail, n := pair(t)
	thief := newMesh(t, n, "thief", "192.0.2.3")
	tok := invite(t, cards, "retail")
	if _, err := retail.Accept(t.Context(), tok.Encode(), ""); err != nil {
		t.Fatal(err)
	}
	_, err := thief.Accept(t.Context(), tok.Encode(), "")
	refusedWith(t, err, "no answer from the inviting mesh within 5s") // its chain has gone with the invitation
	status, body := cards.post(cards.asInvited(thief, tok.InviteID), PathPeering,
		bytes.NewReader(peeringBody(t, thief, tok)))
	if status != http.StatusConflict || !strings.Contains(body, "used already") {
		t.Errorf("replay past the gateway: %d %s", status, body)
	}
	if n := len(snapshot.Of[*v1alpha1.MeshPeer](cards.snapshot().Config)) +
		len(snapshot.Of[*v1alpha1.MeshPeer](thief.snapshot().Config)); n != 1 {
		t.Errorf("%d peers, want 1", n)
	}
	if log := cards.logs.String() + retail.logs.String(); strings.Contains(log, tok.Secret.Reveal()) ||
		strings.Contains(log, tok.Encode()) {
		t.Error("the secret stands in a log")
	}
}

// peeringBody is what m would send to accept tok.
func peeringBody(t *testing.T, m *mesh, tok Token) []byte {
	t.Helper()
	own, err := m.introductionTo(t.Context(), tok.Name)
	if err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(peeringRequest{
		Secret: tok.Secret.Reveal(), Nonce: newID(), Expects: tok.Fingerprint, self: own,
	})
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func TestExpiredTokenIsRefusedOnBothSides(t *testing.T) {
	t.Parallel()
	cards, retail, _ := pair(t)
	tok := invite(t, cards, "retail")
	retail.skip(2 * time.Minute)
	_, err := retail.Accept(t.Context(), tok.Encode(), "")
	refusedWith(t, err, "check the clocks of both sides")
	cards.skip(2 * time.Minute)
	status, body := cards.post(cards.asInvited(retail, tok.InviteID), PathPeering,
		bytes.NewReader(peeringBody(t, retail, tok)))
	if status != http.StatusGone || !strings.Contains(body, "has expired") {
		t.Errorf("%d %s", status, body)
	}
	for _, ttl := range []time.Duration{time.Millisecond, -time.Minute, 16 * time.Minute} {
		_, err := cards.Invite(t.Context(), "retail", ttl)
		refusedWith(t, err, "between 1s and 15m0s")
	}
}

func TestImpostorOnThePathNeverSeesTheSecret(t *testing.T) {
	t.Parallel()
	cards, retail, n := pair(t)
	tok := invite(t, cards, "retail")
	evil := newMesh(t, n, "cards", "192.0.2.1") // same names, same address, another root
	err := evil.db.AddInvite(t.Context(),
		state.Invite{
			ID: tok.InviteID, Hash: tok.Secret.Hash(), Peer: "retail", Created: time.Now(), Expires: tok.Expires,
		})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	_, err = retail.Accept(t.Context(), tok.Encode(), "")
	refusedWith(t, err, "something between the meshes answers in the inviter's place")
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("tried for %s", took)
	}
	if open := len(evil.snapshot().Invites); open != 1 {
		t.Error("the impostor has seen the secret")
	}
	if len(snapshot.Of[*v1alpha1.MeshPeer](retail.snapshot().Config)) != 0 || len(retail.snapshot().Bootstraps) != 0 {
		t.Error("something is left of the attempt")
	}
}

func TestVerifyPinnedRefuses(t *testing.T) {
	root, other := newAuthority(t, "cards"), newAuthority(t, "other")
	leafOnly := newAuthority(t, "leaf", func(c *x509.Certificate) {
		c.IsCA, c.KeyUsage = false,
			x509.KeyUsageDigitalSignature
	})
	chain := func(a authority, id string, more ...*x509.Certificate) []*x509.Certificate {
		raw, _ := a.issue(t, id)
		leaf, err := x509.ParseCertificate(raw[0])
		if err != nil {
			t.Fatal(err)
		}
		return append([]*x509.Certificate{leaf}, more...)
	}
	const gateway = "spiffe://cards.example/ns/isthmus-system/sa/gateway"
	pin := spiffe.Fingerprint(root.cert)
	tests := map[string]struct {
		chain []*x509.Certificate
		pin   string
		at    time.Time
		says  string
	}{
		"good":         {chain(root, gateway, root.cert), pin, time.Now(), ""},
		"without root": {chain(root, gateway), pin, time.Now(), "does not hold the root"},
		"another root": {chain(other, gateway, other.cert), pin, time.Now(), "does not hold the root"},
		"pinned root as decoration": {
			chain(other, gateway, other.cert, root.cert), pin, time.Now(),
			"no valid certificate",
		},
		"root as leaf": {[]*x509.Certificate{root.cert}, pin, time.Now(), "does not hold the root"},
		"foreign trust domain": {
			chain(root, "spiffe://bank.example/ns/a/sa/b", root.cert), pin, time.Now(),
			"no valid certificate",
		},
		"no authority": {
			chain(leafOnly, gateway, leafOnly.cert), spiffe.Fingerprint(leafOnly.cert), time.Now(), "cannot be used",
		},
		"expired": {chain(root, gateway, root.cert), pin, time.Now().Add(2 * time.Hour), "no valid certificate"},
		"a workload": {
			chain(root, "spiffe://cards.example/ns/default/sa/payments", root.cert), pin, time.Now(),
			"with a certificate of the inviter's mesh",
		},
		"a node": {
			chain(root, "spiffe://cards.example/isthmus/node/n1", root.cert), pin, time.Now(),
			"only [spiffe://cards.example/ns/isthmus-system/sa/other ",
		},
		"empty": {nil, pin, time.Now(), "does not hold the root"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := verifyPinned(tt.chain, tt.pin, domain(t, "cards.example"), tt.at,
				"spiffe://cards.example/ns/isthmus-system/sa/other", gateway)
			if tt.says == "" {
				if err != nil || got != root.cert {
					t.Fatalf("%v %v", got, err)
				}
				return
			}
			refusedWith(t, err, tt.says)
			if !isFinal(err) {
				t.Error("would be tried again")
			}
		})
	}
}

func TestOfHundredRacingAcceptsOneWins(t *testing.T) {
	cards, retail, _ := pair(t)
	tok := invite(t, cards, "retail")
	in := make([]introduction, 100)
	for i := range in {
		own, err := retail.introductionTo(t.Context(), "cards")
		if err != nil {
			t.Fatal(err)
		}
		own.TrustDomain = fmt.Sprintf("retail%d.example", i)
		own.GatewayIDs = []string{fmt.Sprintf("spiffe://retail%d.example/ns/isthmus-system/sa/gateway", i)}
		if in[i], err = own.read(time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	won := make(chan int, len(in))
	for i := range in {
		wg.Go(func() {
			cards.making.Lock()
			defer cards.making.Unlock()
			_, err := cards.redeem(context.Background(), tok.InviteID, tok.Secret, "127.0.0.1", fmt.Sprint(i), in[i])
			var st status
			switch {
			case err == nil:
				won <- i
			case !errors.As(err, &st) || st.Code != "Used":
				t.Errorf("loser %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	close(won)
	if len(won) != 1 {
		t.Fatalf("%d winners", len(won))
	}
	peers := snapshot.Of[*v1alpha1.MeshPeer](cards.snapshot().Config)
	if want := fmt.Sprintf("retail%d.example", <-won); len(peers) != 1 || peers[0].Spec.TrustDomain != want {
		t.Errorf("peers %v, want %s", peers, want)
	}
}

func TestLostAnswerCanBeAskedForAgain(t *testing.T) {
	t.Parallel()
	cards, retail, _ := pair(t)
	tok := invite(t, cards, "retail")
	body := peeringBody(t, retail, tok)
	ask := func(body []byte) (int, string) {
		return cards.post(cards.asInvited(retail, tok.InviteID), PathPeering, bytes.NewReader(body))
	}
	first, one := ask(body)
	again, two := ask(body)
	if first != http.StatusOK || again != http.StatusOK || one != two {
		t.Errorf("first %d, again %d, same %v", first, again, one == two)
	}
	changed := bytes.Replace(body, []byte("192.0.2.2:15443"), []byte("192.0.2.9:15443"), 1)
	if code, text := ask(changed); code != http.StatusConflict {
		t.Errorf("changed: %d %s", code, text)
	}
	wrong := bytes.Replace(body, []byte(tok.Secret.Reveal()), []byte(newSecret().Reveal()), 1)
	if code, text := ask(wrong); code != http.StatusForbidden {
		t.Errorf("without the secret: %d %s", code, text)
	}
}

// Who has read an invitation's name on the wire cannot close it by guessing at its secret.
func TestWrongSecretsCloseNothing(t *testing.T) {
	t.Parallel()
	cards, retail, _ := pair(t)
	tok := invite(t, cards, "retail")
	right := peeringBody(t, retail, tok)
	for range 15 {
		wrong := bytes.Replace(right, []byte(tok.Secret.Reveal()), []byte(newSecret().Reveal()), 1)
		code, text := cards.post(cards.asInvited(retail, tok.InviteID), PathPeering, bytes.NewReader(wrong))
		if code != http.StatusForbidden || !strings.Contains(text, "no such invitation") {
			t.Fatalf("%d %s", code, text)
		}
	}
	code, text := cards.post(cards.asInvited(retail, tok.InviteID), PathPeering, bytes.NewReader(right))
	if code != http.StatusOK {
		t.Errorf("the right secret afterwards: %d %s", code, text)
	}
}

func TestPeeringServerRefuses(t *testing.T) {
	t.Parallel()
	cards, retail, n := pair(t, unhurried)
	bank := newMesh(t, n, "bank", "192.0.2.3")
	join(t, cards, retail)
	tok := invite(t, cards, "bank")
	own, err := bank.introductionTo(t.Context(), "cards")
	if err != nil {
		t.Fatal(err)
	}
	body := func(change func(*peeringRequest)) io.Reader {
		r := peeringRequest{Secret: tok.Secret.Reveal(), Nonce: newID(), Expects: tok.Fingerprint, self: own}
		r.GatewayIDs = []string{"spiffe://bank.example/ns/a/sa/b"}
		change(&r)
		raw, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		return bytes.NewReader(raw)
	}
	peer, open := cards.asPeer(retail, "retail"), cards.asInvited(bank, tok.InviteID)
	with := func(who speaker, change func(*speaker)) speaker {
		change(&who)
		return who
	}
	as := func(cert tls.Certificate) func(*speaker) { return func(s *speaker) { s.control = cert } }
	named := func(sni string) func(*speaker) { return func(s *speaker) { s.sni = sni } }
	unchanged := body(func(*peeringRequest) {})
	tests := map[string]struct {
		who  speaker
		path string
		body io.Reader
		code int
		says string
	}{
		"unknown peer": {
			with(peer, named("control.stranger.fed.cards.example")), PathBundle, nil, 403, "nothing may pass",
		},
		"another's name":     {with(peer, as(bank.control)), PathBundle, nil, 403, "nothing may pass"},
		"the peer's gateway": {with(peer, as(retail.gateway)), PathBundle, nil, 403, "nothing may pass"},
		"a workload of the peer": {
			with(peer, as(retail.certificate("spiffe://retail.example/ns/default/sa/web"))), PathBundle, nil, 403,
			"nothing may pass",
		},
		"a node of the peer": {
			with(peer, as(retail.certificate("spiffe://retail.example/isthmus/node/n1"))), PathBundle, nil, 403,
			"nothing may pass",
		},
		"the name, another root": {
			with(peer, as(bank.certificate("spiffe://retail.example/isthmus/control"))), PathBundle, nil, 403,
			"nothing may pass",
		},
		"our own control plane": {with(peer, as(cards.control)), PathBundle, nil, 403, "nothing may pass"},
		"our own gateway": {
			with(peer, as(cards.gateway)), PathCatalogue, strings.NewReader(`{"sequence":1,"services":[]}`), 403,
			"nothing may pass",
		},
		"no name": {with(peer, named("")), PathBundle, nil, 403, "nothing may pass"},
		"a name of ours": {
			with(peer, named("control.retail.fed.retail.example")), PathBundle, nil, 403, "nothing may pass",
		},
		"a probe's name": {
			with(peer, named("probe.retail.fed.cards.example")), PathBundle, nil, 403, "nothing may pass",
		},
		"invitation asks bundle": {open, PathBundle, nil, 403, "nothing may pass"},
		"peer asks peering":      {peer, PathPeering, body(func(*peeringRequest) {}), 400, "no invitation's"},
		"other path":             {peer, "/v1/peers", nil, 404, ""},
		"a probe":                {peer, wellknown.ProbePath, nil, 404, ""},
		"other method":           {peer, PathCatalogue, nil, 405, ""},
		"notice of nothing": {
			peer, PathBundle, strings.NewReader(`{"sequence":1,"roots":[]}`), 400, "not what it should be",
		},
		"notice of many roots": {
			peer, PathBundle, strings.NewReader(`{"sequence":1,"roots":["a"` + strings.Repeat(`,"a"`, 16) + `]}`), 400,
			"not what it should be",
		},
		"large notice":    {peer, PathBundle, strings.NewReader(strings.Repeat("x", 1<<16)), 413, "4096 bytes"},
		"large catalogue": {peer, PathCatalogue, strings.NewReader(strings.Repeat("x", 1<<20)), 413, "262144 bytes"},
		"bad catalogue": {
			peer, PathCatalogue, strings.NewReader(`{"sequence":1,"services":[{"name":"kubernetes.default"}]}`), 400,
			"no DNS label",
		},
		"a long word": {
			peer, PathCatalogue, strings.NewReader(`{"` + strings.Repeat("x", 1<<17) + `":1}`), 400, "unknown field",
		},
		"large peering":    {open, PathPeering, strings.NewReader(strings.Repeat("x", 1<<20)), 413, "bytes"},
		"peering not json": {open, PathPeering, strings.NewReader("hello"), 400, "not what it should be"},
		"unknown invitation": {
			with(open, named(testInvite+".invite.fed.cards.example")), PathPeering, body(func(*peeringRequest) {}),
			403, "no such invitation",
		},
		"no invitation id": {
			with(open, named("x.invite.fed.cards.example")), PathPeering, body(func(*peeringRequest) {}), 400,
			"no invitation's",
		},
		"a workload introduces": {
			with(open, as(bank.certificate("spiffe://bank.example/ns/default/sa/web"))), PathPeering,
			body(func(*peeringRequest) {}), 403, "not the control plane",
		},
		"a gateway introduces": {
			with(open, as(bank.gateway)), PathPeering, body(func(*peeringRequest) {}), 403, "not the control plane",
		},
		"another mesh introduces": {
			with(open, as(retail.control)), PathPeering, body(func(*peeringRequest) {}), 403, "not the control plane",
		},
		"roots of another": {
			open, PathPeering, body(func(r *peeringRequest) { r.Bundle = []byte(jwks(newAuthority(t, "x").cert)) }),
			403, "not the control plane",
		},
		"we have changed": {
			open, PathPeering, body(func(r *peeringRequest) { r.Expects = testPrint }), 409,
			"are not those of the invitation any more",
		},
		"foreign gateway id": {
			open, PathPeering, body(func(r *peeringRequest) { r.GatewayIDs[0] = "spiffe://cards.example/ns/a/sa/b" }),
			400, "outside of trust domain",
		},
		"no gateway id": {
			open, PathPeering, body(func(r *peeringRequest) { r.GatewayIDs = nil }), 400, "gateway identities",
		},
		"upper-case trust domain": {
			open, PathPeering, body(func(r *peeringRequest) { r.TrustDomain = "BANK.example" }), 400, "trust domain",
		},
		"trailing dot": {
			open, PathPeering, body(func(r *peeringRequest) { r.TrustDomain = "bank.example." }), 400, "trust domain",
		},
		"known as a host": {
			open, PathPeering, body(func(r *peeringRequest) { r.KnownAs = "kubernetes.default" }), 400, "DNS label",
		},
		"no nonce": {open, PathPeering, body(func(r *peeringRequest) { r.Nonce = "" }), 400, "nonce"},
		"no bundle": {
			open, PathPeering, body(func(r *peeringRequest) { r.Bundle = []byte(`{}`) }), 400, "no key",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			code, text := cards.post(tt.who, tt.path, tt.body)
			if code != tt.code || !strings.Contains(text, tt.says) {
				t.Errorf("got %d %s, want %d %q", code, text, tt.code, tt.says)
			}
			if len(text) > 500 {
				t.Errorf("%d bytes of answer", len(text))
			}
		})
	}
	if got := len(snapshot.Of[*v1alpha1.MeshPeer](cards.snapshot().Config)); got != 1 {
		t.Errorf("%d peers, want 1", got)
	}
	if cards.snapshot().Peers["retail"].Catalogue != nil {
		t.Error("a refused catalogue was kept")
	}
	// all of these have left it usable
	if code, text := cards.post(open, PathPeering, unchanged); code != http.StatusOK {
		t.Errorf("the genuine acceptance afterwards: %d %s", code, text)
	}
}

// Port 15013 is for this mesh's gateways; what one of them says itself is believed for probes alone.
func TestOnlyOwnGatewaysReachThePeeringPort(t *testing.T) {
	t.Parallel()
	cards, retail, _ := pair(t)
	join(t, cards, retail)
	for name, cert := range map[string]tls.Certificate{
		"a workload":            cards.certificate("spiffe://cards.example/ns/default/sa/payments"),
		"a node":                cards.certificate("spiffe://cards.example/isthmus/node/n1"),
		"the control plane":     cards.control,
		"a gateway unknown":     cards.certificate("spiffe://cards.example/ns/isthmus-system/sa/other"),
		"the peer":              retail.control,
		"the peer's gateway":    retail.gateway,
		"nobody":                {},
		"the name, other roots": retail.certificate(cards.asGateway()),
	} {
		who := cards.asPeer(retail, "retail")
		who.gateway = cert
		if code, text := cards.post(who, PathBundle, nil); code != 0 {
			t.Errorf("%s: %d %s", name, code, text)
		}
	}
	own := func() (net.Conn, error) { return cards.toPeering(cards.gateway, "http/1.1") }
	says := http.Header{HeaderPeer: {"retail"}}
	for _, path := range []string{PathBundle, PathCatalogue, PathPeering} {
		if code, text := cards.postOn(own, path, says,
			strings.NewReader(`{"sequence":1,"services":[]}`)); code != http.StatusNotFound {
			t.Errorf("our gateway in the peer's name: %s: %d %s", path, code, text)
		}
	}
	if code, text := cards.postOn(own, wellknown.ProbePath, says, nil); code != http.StatusOK {
		t.Errorf("a probe: %d %s", code, text)
	}
	for name, probe := range map[string]struct {
		header http.Header
		want   int
	}{
		"nobody": {http.Header{}, 400}, "two": {http.Header{HeaderPeer: {"retail", "retail"}}, 400},
		"a stranger": {http.Header{HeaderPeer: {"stranger"}}, 403},
	} {
		if code, text := cards.postOn(own, wellknown.ProbePath, probe.header, nil); code != probe.want {
			t.Errorf("a probe of %s: %d %s", name, code, text)
		}
	}
}

// Who holds a certificate of the inviter's mesh and stands on the wire is not taken for its gateway, and learns
// nothing.
func TestWorkloadOnTheWireWhilePeering(t *testing.T) {
	t.Parallel()
	for name, stolen := range map[string]struct {
		id   string
		says string
	}{
		"a workload's": {
			"spiffe://cards.example/ns/default/sa/payments", "with a certificate of the inviter's mesh",
		},
		"a node's": {"spiffe://cards.example/isthmus/node/n1", "with a certificate of the inviter's mesh"},
		"another gateway's": {
			"spiffe://cards.example/ns/isthmus-system/sa/edge", "with a certificate of the inviter's mesh",
		},
		"an administrator's": {
			"spiffe://cards.example/isthmus/admin/eve",
			"with a certificate of the inviter's mesh",
		},
		"a gateway's elsewhere": {"spiffe://other.example/ns/isthmus-system/sa/gateway", "no valid certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			cards, retail, n := pair(t)
			tok := invite(t, cards, "retail")
			thief := onTheWire(t, n, cards, cards.certificate(stolen.id))
			_, err := retail.Accept(t.Context(), tok.Encode(), "")
			refusedWith(t, err, stolen.says)
			if got := thief.heard(); len(got) > 0 {
				t.Errorf("it was told %q", got)
			}
			if len(snapshot.Of[*v1alpha1.MeshPeer](retail.snapshot().Config))+
				len(snapshot.Of[*v1alpha1.MeshPeer](cards.snapshot().Config)) != 0 ||
				len(cards.snapshot().Invites) != 1 {
				t.Error("something was peered, or the invitation has gone")
			}
			n.route("192.0.2.1:15443", cards.listening)
			if _, err := retail.Accept(t.Context(), tok.Encode(), ""); err != nil {
				t.Errorf("the genuine gateway afterwards: %v", err)
			}
		})
	}
}

// Even the inviter's own gateway, stolen, does not see the secret, and cannot answer in its control plane's place.
func TestStolenGatewayWhilePeering(t *testing.T) {
	t.Parallel()
	cards, retail, n := pair(t)
	tok := invite(t, cards, "retail")
	thief := onTheWire(t, n, cards, cards.gateway)
	_, err := retail.Accept(t.Context(), tok.Encode(), "")
	refusedWith(t, err, "sa/gateway answered, where only [spiffe://cards.example/isthmus/control] may")
	if got := thief.heard(); strings.Contains(got, tok.Secret.Reveal()) || strings.Contains(got, "POST") {
		t.Errorf("it was told %q", got)
	}
	n.route("192.0.2.1:15443", cards.listening)
	var heard logtest.Buffer
	cards.carries = func(c net.Conn) net.Conn { return overheard{c, &heard} } // it passes all on, and listens
	if _, err := retail.Accept(t.Context(), tok.Encode(), ""); err != nil {
		t.Fatal(err)
	}
	if got := heard.String(); len(got) < 1000 || strings.Contains(got, tok.Secret.Reveal()) ||
		strings.Contains(got, "retail.example") {
		t.Errorf("it heard %d bytes: %q", len(got), got)
	}
}

// overheard is a connection whose bytes are kept.
type overheard struct {
	net.Conn
	into io.Writer
}

func (o overheard) Read(b []byte) (int, error) {
	n, err := o.Conn.Read(b)
	_, _ = o.into.Write(b[:n])
	return n, err
}

// wire is somebody who answers at a mesh's gateway address with a certificate of that mesh, twice over.
type wire struct{ told logtest.Buffer }

func (w *wire) heard() string { return w.told.String() }

func onTheWire(t *testing.T, n *network, of *mesh, stolen tls.Certificate) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	w := &wire{}
	config := &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{*withRoot(stolen, of.root)},
		ClientAuth: tls.RequestClientCert,
	}
	go func() {
		for {
			raw, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer raw.Close()
				outer := tls.Server(raw, config)
				if outer.Handshake() != nil {
					return
				}
				inner := tls.Server(outer, config)
				if inner.Handshake() != nil {
					return
				}
				_, _ = io.Copy(&w.told, inner)
			}()
		}
	}()
	n.route(of.address.String(), l.Addr().String())
	return w
}

// What clashes with the inviter is refused without telling the newcomer with what.
func TestInviterRefusesWhatClashes(t *testing.T) {
	t.Parallel()
	cards, retail, _ := pair(t)
	join(t, cards, retail)
	const control = "spiffe://bank.example/isthmus/control"
	withToo := func(doc json.RawMessage, more *x509.Certificate) json.RawMessage {
		b, err := ParseBundle(domain(t, "bank.example"), doc, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return json.RawMessage(jwks(append(b.Roots, more)...))
	}
	tests := map[string]struct {
		change func(*self)
		id     string
		log    string
	}{
		"a peer's trust domain": {func(s *self) {
			s.TrustDomain, s.GatewayIDs = "retail.example", []string{"spiffe://retail.example/ns/a/sa/b"}
		}, "spiffe://retail.example/isthmus/control", "trust domain retail.example is that of peer retail already"},
		"our trust domain": {func(s *self) {
			s.TrustDomain, s.GatewayIDs = "cards.example", []string{"spiffe://cards.example/ns/a/sa/b"}
		}, "spiffe://cards.example/isthmus/control", "this mesh's own"},
		"our root too": {
			func(s *self) { s.Bundle = withToo(s.Bundle, cards.root.cert) }, control, "is one of this mesh's own",
		},
		"a peer's root too": {
			func(s *self) { s.Bundle = withToo(s.Bundle, retail.root.cert) }, control, "is one of peer retail",
		},
		"address of our gateway": {func(s *self) { s.Addresses[0] = cards.address }, control, "lies inside this mesh"},
		"inner address of gateway": {
			func(s *self) { s.Addresses[0] = netip.MustParseAddrPort("10.0.0.1:443") }, control,
			"lies inside this mesh",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			bank := newMesh(t, &network{where: map[string]string{}}, "bank", "192.0.2.3")
			tok := invite(t, cards, "bank")
			own, err := bank.introductionTo(t.Context(), "cards")
			if err != nil {
				t.Fatal(err)
			}
			tt.change(&own)
			who := cards.asInvited(bank, tok.InviteID)
			who.control = bank.certificate(tt.id)
			raw, err := json.Marshal(peeringRequest{
				Secret: tok.Secret.Reveal(), Nonce: newID(), Expects: tok.Fingerprint, self: own,
			})
			if err != nil {
				t.Fatal(err)
			}
			code, text := cards.post(who, PathPeering, bytes.NewReader(raw))
			if code != http.StatusConflict || strings.Contains(text, "retail") {
				t.Errorf("%d %s", code, text)
			}
			if !strings.Contains(cards.logs.String(), tt.log) {
				t.Errorf("the log does not say %q", tt.log)
			}
			if got := len(snapshot.Of[*v1alpha1.MeshPeer](cards.snapshot().Config)); got != 1 {
				t.Errorf("%d peers, want 1", got)
			}
		})
	}
}

func TestAcceptRefusesBeforeItAsks(t *testing.T) {
	cards, retail, _ := pair(t)
	tok := invite(t, cards, "retail")
	_, err := cards.Accept(t.Context(), tok.Encode(), "")
	refusedWith(t, err, "accept it at the other mesh")
	_, err = retail.Accept(t.Context(), tok.Encode(), "Bad Name")
	refusedWith(t, err, "cannot name a peer")
	if _, err = retail.Accept(t.Context(), tok.Encode(), "pci"); err != nil {
		t.Fatal(err)
	}
	more := invite(t, cards, "retail-2")
	_, err = retail.Accept(t.Context(), more.Encode(), "pci")
	refusedWith(t, err, "'isthmus peer revoke pci' first")
	_, err = retail.Accept(t.Context(), more.Encode(), "")
	refusedWith(t, err, "trust domain cards.example is that of peer pci already")
	_, err = cards.Invite(t.Context(), "retail", time.Minute)
	refusedWith(t, err, "there is a peer retail already")
}

func TestSlowSenderIsCutOff(t *testing.T) {
	t.Parallel()
	cards, retail, _ := pair(t, func(_ *mesh, c *Config) { c.ReadTimeout = 300 * time.Millisecond })
	join(t, cards, retail)
	for name, start := range map[string]string{
		"header": "GET /v1/bundle HTTP/1.1\r\nHost: x\r\n",
		"body":   "POST /v1/catalogue HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n{",
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := cards.dialAs(cards.asPeer(retail, "retail"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, start); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			go func() {
				for range 100 {
					waittest.Pace(50 * time.Millisecond)
					if _, err := io.WriteString(conn, "x"); err != nil {
						return
					}
				}
			}()
			if err := conn.SetReadDeadline(time.Now().Add(4 * time.Second)); err != nil {
				t.Fatal(err)
			}
			_, err = io.Copy(io.Discard, conn)
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("held a connection for %s (%v)", took, err)
			}
		})
	}
}
