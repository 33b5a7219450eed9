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
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/peerrules"
	"isthmus.dev/isthmus/internal/state"
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
	cards, retail, n := pair(t)
	thief := newMesh(t, n, "thief", "192.0.2.3")
	tok := invite(t, cards, "retail")
	if _, err := retail.Accept(t.Context(), tok.Encode(), ""); err != nil {
		t.Fatal(err)
	}
	_, err := thief.Accept(t.Context(), tok.Encode(), "")
	refusedWith(t, err, "no answer from the inviting mesh within 5s") // its chain has gone with the invitation
	status, body := cards.post(cards.asGateway(), PathPeering, http.Header{HeaderInvite: {tok.InviteID}}, bytes.NewReader(peeringBody(t, thief, tok)))
	if status != http.StatusConflict || !strings.Contains(body, "used already") {
		t.Errorf("replay past the gateway: %d %s", status, body)
	}
	if n := len(cards.snapshot().Config.MeshPeers) + len(thief.snapshot().Config.MeshPeers); n != 1 {
		t.Errorf("%d peers, want 1", n)
	}
	if log := cards.logs.String() + retail.logs.String(); strings.Contains(log, tok.Secret.Reveal()) || strings.Contains(log, tok.Encode()) {
		t.Error("the secret stands in a log")
	}
}

// peeringBody is what m would send to accept tok.
func peeringBody(t *testing.T, m *mesh, tok Token) []byte {
	t.Helper()
	own, err := m.introduce(t.Context(), tok.Name)
	if err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(peeringRequest{Secret: tok.Secret.Reveal(), Nonce: newID(), self: own})
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func TestExpiredTokenIsRefusedOnBothSides(t *testing.T) {
	cards, retail, _ := pair(t)
	tok := invite(t, cards, "retail")
	retail.skip(2 * time.Minute)
	_, err := retail.Accept(t.Context(), tok.Encode(), "")
	refusedWith(t, err, "check the clocks of both sides")
	cards.skip(2 * time.Minute)
	status, body := cards.post(cards.asGateway(), PathPeering, http.Header{HeaderInvite: {tok.InviteID}}, bytes.NewReader(peeringBody(t, retail, tok)))
	if status != http.StatusGone || !strings.Contains(body, "has expired") {
		t.Errorf("%d %s", status, body)
	}
	for _, ttl := range []time.Duration{time.Millisecond, -time.Minute, 16 * time.Minute} {
		_, err := cards.Invite(t.Context(), "retail", ttl)
		refusedWith(t, err, "between 1s and 15m0s")
	}
}

func TestImpostorOnThePathNeverSeesTheSecret(t *testing.T) {
	cards, retail, n := pair(t)
	tok := invite(t, cards, "retail")
	evil := newMesh(t, n, "cards", "192.0.2.1") // same names, same address, another root
	err := evil.db.AddInvite(t.Context(), state.Invite{ID: tok.InviteID, Hash: tok.Secret.Hash(), Peer: "retail", Created: time.Now(), Expires: tok.Expires})
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
	if len(retail.snapshot().Config.MeshPeers) != 0 || len(retail.snapshot().Bootstraps) != 0 {
		t.Error("something is left of the attempt")
	}
}

func TestVerifyPinnedRefuses(t *testing.T) {
	root, other := newAuthority(t, "cards"), newAuthority(t, "other")
	leafOnly := newAuthority(t, "leaf", func(c *x509.Certificate) { c.IsCA, c.KeyUsage = false, x509.KeyUsageDigitalSignature })
	chain := func(a authority, id string, more ...*x509.Certificate) []*x509.Certificate {
		raw, _ := a.issue(t, id)
		leaf, err := x509.ParseCertificate(raw[0])
		if err != nil {
			t.Fatal(err)
		}
		return append([]*x509.Certificate{leaf}, more...)
	}
	const gateway = "spiffe://cards.example/ns/isthmus-system/sa/gateway"
	pin := peerrules.Fingerprint(root.cert)
	tests := map[string]struct {
		chain []*x509.Certificate
		pin   string
		at    time.Time
		says  string
	}{
		"good":                      {chain(root, gateway, root.cert), pin, time.Now(), ""},
		"without root":              {chain(root, gateway), pin, time.Now(), "does not hold the root"},
		"another root":              {chain(other, gateway, other.cert), pin, time.Now(), "does not hold the root"},
		"pinned root as decoration": {chain(other, gateway, other.cert, root.cert), pin, time.Now(), "no valid certificate"},
		"root as leaf":              {[]*x509.Certificate{root.cert}, pin, time.Now(), "does not hold the root"},
		"foreign trust domain":      {chain(root, "spiffe://bank.example/ns/a/sa/b", root.cert), pin, time.Now(), "no valid certificate"},
		"no authority":              {chain(leafOnly, gateway, leafOnly.cert), peerrules.Fingerprint(leafOnly.cert), time.Now(), "cannot be used"},
		"expired":                   {chain(root, gateway, root.cert), pin, time.Now().Add(2 * time.Hour), "no valid certificate"},
		"empty":                     {nil, pin, time.Now(), "does not hold the root"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			id, err := verifyPinned(tt.chain, tt.pin, domain(t, "cards.example"), tt.at)
			if tt.says == "" {
				if err != nil || id.String() != gateway {
					t.Fatalf("%v %v", id, err)
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
		own, err := retail.introduce(t.Context(), "cards")
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
			_, err := cards.redeem(context.Background(), tok.InviteID, tok.Secret, fmt.Sprint(i), in[i])
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
	peers := cards.snapshot().Config.MeshPeers
	if want := fmt.Sprintf("retail%d.example", <-won); len(peers) != 1 || peers[0].Spec.TrustDomain != want {
		t.Errorf("peers %v, want %s", peers, want)
	}
}

func TestLostAnswerCanBeAskedForAgain(t *testing.T) {
	cards, retail, _ := pair(t)
	tok := invite(t, cards, "retail")
	body := peeringBody(t, retail, tok)
	ask := func(body []byte) (int, string) {
		return cards.post(cards.asGateway(), PathPeering, http.Header{HeaderInvite: {tok.InviteID}}, bytes.NewReader(body))
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

func TestFiveWrongSecretsCloseAnInvitation(t *testing.T) {
	cards, retail, _ := pair(t)
	tok := invite(t, cards, "retail")
	right := peeringBody(t, retail, tok)
	for range 5 {
		wrong := bytes.Replace(right, []byte(tok.Secret.Reveal()), []byte(newSecret().Reveal()), 1)
		code, text := cards.post(cards.asGateway(), PathPeering, http.Header{HeaderInvite: {tok.InviteID}}, bytes.NewReader(wrong))
		if code != http.StatusForbidden || !strings.Contains(text, "no such invitation") {
			t.Fatalf("%d %s", code, text)
		}
	}
	if len(cards.snapshot().Invites) != 0 {
		t.Error("still open")
	}
	code, text := cards.post(cards.asGateway(), PathPeering, http.Header{HeaderInvite: {tok.InviteID}}, bytes.NewReader(right))
	if code != http.StatusForbidden {
		t.Errorf("the right secret afterwards: %d %s", code, text)
	}
}

func TestPeeringServerRefuses(t *testing.T) {
	cards, retail, _ := pair(t)
	join(t, cards, retail)
	tok := invite(t, cards, "bank")
	gateway := cards.asGateway()
	peer, open := http.Header{HeaderPeer: {"retail"}}, http.Header{HeaderInvite: {tok.InviteID}}
	own, err := retail.introduce(t.Context(), "cards")
	if err != nil {
		t.Fatal(err)
	}
	body := func(change func(*peeringRequest)) io.Reader {
		r := peeringRequest{Secret: tok.Secret.Reveal(), Nonce: newID(), self: own}
		r.TrustDomain, r.GatewayIDs = "bank.example", []string{"spiffe://bank.example/ns/a/sa/b"}
		change(&r)
		raw, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		return bytes.NewReader(raw)
	}
	tests := map[string]struct {
		id, path string
		header   http.Header
		body     io.Reader
		code     int
		says     string
	}{
		"a workload asks":         {"spiffe://cards.example/ns/default/sa/payments", PathBundle, peer, nil, 403, "only this mesh's gateways"},
		"the control plane asks":  {"spiffe://cards.example/isthmus/control", PathBundle, peer, nil, 403, "only this mesh's gateways"},
		"a gateway unregistered":  {"spiffe://cards.example/ns/isthmus-system/sa/other", PathBundle, peer, nil, 403, "only this mesh's gateways"},
		"no header":               {gateway, PathBundle, http.Header{}, nil, 400, "for whom it asks"},
		"empty header":            {gateway, PathBundle, http.Header{HeaderPeer: {""}}, nil, 400, "for whom it asks"},
		"two peers":               {gateway, PathBundle, http.Header{HeaderPeer: {"retail", "bank"}}, nil, 400, "for whom it asks"},
		"peer and invitation":     {gateway, PathBundle, http.Header{HeaderPeer: {"retail"}, HeaderInvite: {tok.InviteID}}, nil, 400, "for whom it asks"},
		"unknown peer":            {gateway, PathBundle, http.Header{HeaderPeer: {"stranger"}}, nil, 403, "nothing may pass"},
		"invitation asks bundle":  {gateway, PathBundle, open, nil, 400, "for whom it asks"},
		"peer asks peering":       {gateway, PathPeering, peer, body(func(*peeringRequest) {}), 400, "which invitation"},
		"other path":              {gateway, "/v1/peers", peer, nil, 404, ""},
		"other method":            {gateway, PathCatalogue, peer, nil, 405, ""},
		"notice of nothing":       {gateway, PathBundle, peer, strings.NewReader(`{"sequence":1,"roots":[]}`), 400, "not what it should be"},
		"notice of many roots":    {gateway, PathBundle, peer, strings.NewReader(`{"sequence":1,"roots":["a"` + strings.Repeat(`,"a"`, 16) + `]}`), 400, "not what it should be"},
		"large notice":            {gateway, PathBundle, peer, strings.NewReader(strings.Repeat("x", 1<<16)), 413, "4096 bytes"},
		"notice of a stranger":    {gateway, PathBundle, http.Header{HeaderPeer: {"stranger"}}, strings.NewReader(`{"sequence":1,"roots":["a"]}`), 403, "nothing may pass"},
		"large catalogue":         {gateway, PathCatalogue, peer, strings.NewReader(strings.Repeat("x", 1<<20)), 413, "262144 bytes"},
		"bad catalogue":           {gateway, PathCatalogue, peer, strings.NewReader(`{"sequence":1,"services":[{"name":"kubernetes.default"}]}`), 400, "no DNS label"},
		"large peering":           {gateway, PathPeering, open, strings.NewReader(strings.Repeat("x", 1<<20)), 413, "bytes"},
		"peering not json":        {gateway, PathPeering, open, strings.NewReader("hello"), 400, "not what it should be"},
		"unknown invitation":      {gateway, PathPeering, http.Header{HeaderInvite: {testInvite}}, body(func(*peeringRequest) {}), 403, "no such invitation"},
		"no invitation id":        {gateway, PathPeering, http.Header{HeaderInvite: {"' OR 1=1"}}, body(func(*peeringRequest) {}), 400, "which invitation"},
		"foreign gateway id":      {gateway, PathPeering, open, body(func(r *peeringRequest) { r.GatewayIDs[0] = "spiffe://cards.example/ns/a/sa/b" }), 400, "outside of trust domain"},
		"no gateway id":           {gateway, PathPeering, open, body(func(r *peeringRequest) { r.GatewayIDs = nil }), 400, "gateway identities"},
		"upper-case trust domain": {gateway, PathPeering, open, body(func(r *peeringRequest) { r.TrustDomain = "BANK.example" }), 400, "trust domain"},
		"known as a host":         {gateway, PathPeering, open, body(func(r *peeringRequest) { r.KnownAs = "kubernetes.default" }), 400, "DNS label"},
		"no nonce":                {gateway, PathPeering, open, body(func(r *peeringRequest) { r.Nonce = "" }), 400, "nonce"},
		"no bundle":               {gateway, PathPeering, open, body(func(r *peeringRequest) { r.Bundle = []byte(`{}`) }), 400, "no key"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			cards.limits.keys.byKey = map[string]*limiter{}
			code, text := cards.post(tt.id, tt.path, tt.header, tt.body)
			if code != tt.code || !strings.Contains(text, tt.says) {
				t.Errorf("got %d %s, want %d %q", code, text, tt.code, tt.says)
			}
			if len(text) > 500 {
				t.Errorf("%d bytes of answer", len(text))
			}
		})
	}
	if got := len(cards.snapshot().Config.MeshPeers); got != 1 {
		t.Errorf("%d peers, want 1", got)
	}
	if cards.snapshot().Peers["retail"].Catalogue != nil {
		t.Error("a refused catalogue was kept")
	}
}

// What clashes with the inviter is refused without telling the newcomer with what.
func TestInviterRefusesWhatClashes(t *testing.T) {
	cards, retail, _ := pair(t)
	join(t, cards, retail)
	tests := map[string]struct {
		change func(*self)
		log    string
	}{
		"a peer's trust domain": {func(s *self) {
			s.TrustDomain, s.GatewayIDs = "retail.example", []string{"spiffe://retail.example/ns/a/sa/b"}
		}, "trust domain retail.example is that of peer retail already"},
		"our trust domain": {func(s *self) {
			s.TrustDomain, s.GatewayIDs = "cards.example", []string{"spiffe://cards.example/ns/a/sa/b"}
		}, "this mesh's own"},
		"our root": {func(s *self) {
			s.Bundle = json.RawMessage(jwks(cards.root.cert))
		}, "is one of this mesh's own"},
		"a peer's root":            {func(s *self) { s.Bundle = json.RawMessage(jwks(retail.root.cert)) }, "is one of peer retail"},
		"address of our gateway":   {func(s *self) { s.Addresses[0] = cards.address }, "lies inside this mesh"},
		"inner address of gateway": {func(s *self) { s.Addresses[0] = netip.MustParseAddrPort("10.0.0.1:443") }, "lies inside this mesh"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			bank := newMesh(t, &network{where: map[string]string{}}, "bank", "192.0.2.3")
			tok := invite(t, cards, "bank")
			own, err := bank.introduce(t.Context(), "cards")
			if err != nil {
				t.Fatal(err)
			}
			tt.change(&own)
			raw, err := json.Marshal(peeringRequest{Secret: tok.Secret.Reveal(), Nonce: newID(), self: own})
			if err != nil {
				t.Fatal(err)
			}
			code, text := cards.post(cards.asGateway(), PathPeering, http.Header{HeaderInvite: {tok.InviteID}}, bytes.NewReader(raw))
			if code != http.StatusConflict || strings.Contains(text, "retail") {
				t.Errorf("%d %s", code, text)
			}
			if !strings.Contains(cards.logs.String(), tt.log) {
				t.Errorf("the log does not say %q", tt.log)
			}
			if got := len(cards.snapshot().Config.MeshPeers); got != 1 {
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
	cards, retail, _ := pair(t, func(_ *mesh, c *Config) { c.ReadTimeout = 300 * time.Millisecond })
	join(t, cards, retail)
	for name, start := range map[string]string{
		"header": "GET /v1/bundle HTTP/1.1\r\nHost: x\r\n",
		"body":   "POST /v1/catalogue HTTP/1.1\r\nHost: x\r\nisthmus-peer: retail\r\nContent-Length: 100000\r\n\r\n{",
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := tls.Dial("tcp", cards.peering, &tls.Config{Certificates: []tls.Certificate{cards.gateway}, InsecureSkipVerify: true})
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
					time.Sleep(50 * time.Millisecond)
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
