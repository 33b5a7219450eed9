package federation

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/peerrules"
)

// FuzzIntroduction reads what a mesh says of itself in a request for peering, or in the answer.
func FuzzIntroduction(f *testing.F) {
	root := newAuthority(f, "cards").cert
	good := `{"trustDomain":"cards.example","knownAs":"retail","bundle":` + jwks(root) +
		`,"gatewayAddresses":["192.0.2.1:15443"],"gatewayIDs":["spiffe://cards.example/ns/isthmus-system/sa/gateway"]}`
	for _, seed := range []string{
		good, "null", "{}", "[]", `""`, "0", `{"bundle":null}`, `{"gatewayAddresses":[null]}`,
		`{"gatewayIDs":[null,""]}`,
		strings.Replace(good, `"192.0.2.1:15443"`, `""`, 1), strings.Replace(good, jwks(root), "null", 1),
		strings.Replace(good, jwks(root), `{"keys":[null]}`, 1),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var s self
		if strictJSON(raw, &s) != nil {
			return
		}
		in, err := s.read(time.Now())
		if err != nil {
			return
		}
		if len(in.fingerprint()) != 64 || len(in.Addresses) == 0 || len(in.GatewayIDs) == 0 ||
			len(in.Bundle.Roots) == 0 || len(in.Bundle.Roots) > peerrules.MaxRoots {
			t.Fatalf("accepted %+v", in)
		}
		for _, id := range in.GatewayIDs {
			if !strings.HasPrefix(id, "spiffe://"+in.TrustDomain.Name()+"/") {
				t.Fatalf("accepted gateway %q of %s", id, in.TrustDomain.Name())
			}
		}
	})
}

// The fingerprint that people compare changes with each thing that it covers, and with nothing else.
func TestFingerprintOfAMesh(t *testing.T) {
	a, b := newAuthority(t, "a").cert, newAuthority(t, "b").cert
	const id, other = "spiffe://cards.example/ns/isthmus-system/sa/gateway",
		"spiffe://cards.example/ns/isthmus-system/sa/gatewax"
	base := introduction{
		TrustDomain: mustDomain("cards.example"), Bundle: Bundle{Roots: certs(authority{cert: a}, authority{cert: b})},
		GatewayIDs: []string{id, other},
	}
	read := func(change func(*self)) introduction {
		raw, err := base.Bundle.Encode()
		if err != nil {
			t.Fatal(err)
		}
		s := self{TrustDomain: "cards.example", KnownAs: "retail", Bundle: raw, GatewayIDs: []string{id, other}}
		if err := json.Unmarshal([]byte(`["192.0.2.1:15443","192.0.2.2:15443"]`), &s.Addresses); err != nil {
			t.Fatal(err)
		}
		change(&s)
		in, err := s.read(time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return in
	}
	base.Bundle.TrustDomain, base.Bundle.Sequence = base.TrustDomain, 1
	want := read(func(*self) {}).fingerprint()
	for name, same := range map[string]func(*self){
		"order of gateways":  func(s *self) { s.GatewayIDs = []string{other, id} },
		"order of addresses": func(s *self) { s.Addresses[0], s.Addresses[1] = s.Addresses[1], s.Addresses[0] },
		"the name for us":    func(s *self) { s.KnownAs = "shop" },
	} {
		if got := read(same).fingerprint(); got != want {
			t.Errorf("%s counts", name)
		}
	}
	for name, other := range map[string]func(*self){
		"a gateway less":  func(s *self) { s.GatewayIDs = s.GatewayIDs[:1] },
		"another gateway": func(s *self) { s.GatewayIDs[1] = "spiffe://cards.example/ns/isthmus-system/sa/other" },
		"an address less": func(s *self) { s.Addresses = s.Addresses[:1] },
		"another port":    func(s *self) { s.Addresses[0] = netip.MustParseAddrPort("192.0.2.1:443") },
		"a root less":     func(s *self) { s.Bundle = json.RawMessage(jwks(a)) },
		"another domain": func(s *self) {
			s.TrustDomain, s.GatewayIDs = "bank.example", []string{"spiffe://bank.example/x"}
		},
	} {
		if got := read(other).fingerprint(); got == want {
			t.Errorf("%s does not count", name)
		}
	}
}
