package federation

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const (
	testInvite = "00112233445566778899aabbccddeeff"
	testPrint  = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
	otherPrint = "ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100"
)

func goodToken() map[string]any {
	return map[string]any{
		"td": "cards.example", "name": "cards", "as": "retail",
		"addrs":    []string{"192.0.2.1:15443", "[2001:db8::1]:15443"},
		"gateways": []string{"spiffe://cards.example/ns/isthmus-system/sa/gateway"}, "id": testInvite,
		"secret": strings.Repeat("A", 43), "root": testPrint, "mesh": otherPrint, "exp": 1785585600,
	}
}

func encodeToken(t testing.TB, fields map[string]any) string {
	t.Helper()
	raw, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	return "isthmus-peer-v1." + base64.RawURLEncoding.EncodeToString(raw)
}

func TestParseToken(t *testing.T) {
	got, err := ParseToken(" " + encodeToken(t, goodToken()) + "\n")
	if err != nil {
		t.Fatal(err)
	}
	want := Token{
		TrustDomain: domain(t, "cards.example"), Name: "cards", KnownAs: "retail", InviteID: testInvite,
		Root: testPrint, Fingerprint: otherPrint,
		Addresses: []netip.AddrPort{
			netip.MustParseAddrPort("192.0.2.1:15443"),
			netip.MustParseAddrPort("[2001:db8::1]:15443"),
		},
		Expires: time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC),
	}
	if got.Secret.Reveal() != strings.Repeat("A", 43) {
		t.Error("another secret")
	}
	if got.TrustDomain != want.TrustDomain || got.Name != want.Name || got.KnownAs != want.KnownAs ||
		got.InviteID != want.InviteID ||
		got.Root != want.Root || got.Fingerprint != want.Fingerprint || len(got.GatewayIDs) != 1 ||
		got.GatewayIDs[0] != "spiffe://cards.example/ns/isthmus-system/sa/gateway" ||
		!got.Expires.Equal(want.Expires) || len(got.Addresses) != 2 ||
		got.Addresses[0] != want.Addresses[0] || got.Addresses[1] != want.Addresses[1] {
		t.Errorf("got %+v", got)
	}
	again, err := ParseToken(got.Encode())
	if err != nil || again.Encode() != got.Encode() {
		t.Errorf("not the same after a round trip: %v", err)
	}
}

func TestParseTokenRefuses(t *testing.T) {
	with := func(key string, value any) string {
		m := goodToken()
		m[key] = value
		return encodeToken(t, m)
	}
	many := make([]string, 17)
	for i := range many {
		many[i] = fmt.Sprintf("192.0.2.%d:15443", i)
	}
	tests := map[string]struct{ token, says string }{
		"empty":             {"  ", "paste what 'isthmus peer invite' printed"},
		"join token":        {"isthmus-join-v1.e30", "use it with 'isthmus node'"},
		"newer":             {"isthmus-peer-v2.e30", "same version of isthmus"},
		"foreign":           {"hello", `begins with "isthmus-peer-v1."`},
		"huge":              {"isthmus-peer-v1." + strings.Repeat("A", 1<<20), "longer than 16384 bytes"},
		"cut":               {encodeToken(t, goodToken())[:100], "copy it again"},
		"not base64":        {"isthmus-peer-v1.***", "copy it again"},
		"unknown field":     {with("extra", 1), "copy it again"},
		"trust domain":      {with("td", "Cards.Example"), "trust domain is not one"},
		"trailing dot":      {with("td", "cards.example."), "trust domain is not one"},
		"leading hyphen":    {with("td", "-cards.example"), "trust domain is not one"},
		"name":              {with("name", "kubernetes.default"), "proposed name is no DNS label"},
		"known as":          {with("as", "-retail"), "name for this mesh is no DNS label"},
		"no address":        {with("addrs", []string{}), "there is none"},
		"many addresses":    {with("addrs", many), "more than 16"},
		"loopback":          {with("addrs", []string{"127.0.0.1:15443"}), "127.0.0.1:15443 cannot be reached"},
		"virtual":           {with("addrs", []string{"240.240.1.1:15443"}), "cannot be reached"},
		"our own port":      {with("addrs", []string{"192.0.2.1:15444"}), "cannot be reached"},
		"mapped loopback":   {with("addrs", []string{"[::ffff:127.0.0.1]:15443"}), "cannot be reached"},
		"metadata service":  {with("addrs", []string{"169.254.169.254:80"}), "cannot be reached"},
		"port 0":            {with("addrs", []string{"192.0.2.1:0"}), "number 1 is not ip:port"},
		"twice":             {with("addrs", []string{"192.0.2.1:1", "192.0.2.1:1"}), "stands there twice"},
		"id":                {with("id", "../../etc"), "invitation id"},
		"short secret":      {with("secret", "AAAA"), "secret cannot be read"},
		"secret not base64": {with("secret", strings.Repeat("*", 43)), "secret cannot be read"},
		"fingerprint":       {with("root", strings.ToUpper(testPrint)), "root fingerprint"},
		"mesh fingerprint":  {with("mesh", "x"), "mesh fingerprint"},
		"no gateway":        {with("gateways", []string{}), "between 1 and 16 gateway identities"},
		"foreign gateway":   {with("gateways", []string{"spiffe://bank.example/ns/a/sa/b"}), "outside of trust domain"},
		"expiry":            {with("exp", -1), "expiry is not a time"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := ParseToken(tt.token)
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Fatalf("got %v, want %q", err, tt.says)
			}
			if len(err.Error()) > 400 || strings.Contains(err.Error(), strings.Repeat("A", 43)) {
				t.Errorf("the refusal quotes from the token: %v", err)
			}
		})
	}
}

func TestSecretsRedactThemselves(t *testing.T) {
	tok, err := ParseToken(encodeToken(t, goodToken()))
	if err != nil {
		t.Fatal(err)
	}
	asJSON, err := json.Marshal(map[string]any{"secret": tok.Secret})
	if err != nil {
		t.Fatal(err)
	}
	printed := []string{
		fmt.Sprint(tok), fmt.Sprintf("%+v", tok), fmt.Sprintf("%#v", tok.Secret), fmt.Sprintf("%x", tok.Secret),
		fmt.Sprintf("%v", struct{ S Secret }{tok.Secret}), string(asJSON), tok.Secret.LogValue().String(),
	}
	want := []string{
		"isthmus-peer-v1.[redacted]", "isthmus-peer-v1.[redacted]", "[redacted]", "[redacted]", "{[redacted]}",
		`{"secret":"[redacted]"}`, "[redacted]",
	}
	if diff := cmp.Diff(want, printed); diff != "" {
		t.Error(diff)
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add(encodeToken(f, goodToken()))
	f.Add("isthmus-peer-v1.e30")
	f.Fuzz(func(t *testing.T, text string) {
		tok, err := ParseToken(text)
		if err != nil {
			return
		}
		again, err := ParseToken(tok.Encode())
		if err != nil || again.Encode() != tok.Encode() {
			t.Fatalf("accepted %q, but not what it encodes to: %v", text, err)
		}
	})
}
