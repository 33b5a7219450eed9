package ca_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/ca"
	"isthmus.dev/isthmus/internal/logtest"
	"isthmus.dev/isthmus/internal/state"
)

func TestTokenCarriesWhatTheNodeNeeds(t *testing.T) {
	b := newBench(t)
	a := b.start(t)
	issued := must(a.CreateToken(t.Context(),
		ca.TokenSpec{Node: "n1", Role: "node", Addresses: []string{"10.0.0.1:15012", "[fd00::1]:15012"}}))
	if !issued.Expires.Equal(noon.Add(15 * time.Minute)) {
		t.Errorf("expires %s", issued.Expires)
	}
	text := issued.Token.Reveal()
	if !strings.HasPrefix(text, "isthmus-join-v1.") || strings.ContainsAny(text, "+/= \n") {
		t.Errorf("token %q", text)
	}
	got := must(ca.ParseToken(" " + text + "\n")) // as copied from a terminal
	if got.ID != issued.ID || got.Fingerprint != a.RootFingerprint() ||
		fmt.Sprint(got.Addresses) != "[10.0.0.1:15012 [fd00::1]:15012]" {
		t.Errorf("parsed %+v", got)
	}
	if len(got.Secret.Reveal()) != 43 { // 32 bytes
		t.Errorf("secret of %d characters", len(got.Secret.Reveal()))
	}
}

func TestTokenSpecRefusals(t *testing.T) {
	a := newBench(t).start(t)
	good := ca.TokenSpec{Node: "n1", Role: "node", Addresses: []string{"10.0.0.1:15012"}}
	for _, test := range []struct {
		change func(*ca.TokenSpec)
		want   string
	}{
		{func(s *ca.TokenSpec) { s.Node = "" }, `node name ""`},
		{
			func(s *ca.TokenSpec) { s.Node = "n1/../control" },
			`node name "n1/../control": use at most 63 lower-case letters`,
		},
		{func(s *ca.TokenSpec) { s.Node = "N1" }, `node name "N1"`},
		{func(s *ca.TokenSpec) { s.Node = strings.Repeat("a", 64) }, `node name`},
		{func(s *ca.TokenSpec) { s.Role = "admin" }, `role "admin": say node or gateway`},
		{func(s *ca.TokenSpec) { s.TTL = 31 * 24 * time.Hour }, `life 744h0m0s: say at most 720h0m0s`},
		{func(s *ca.TokenSpec) { s.Grant.Identities = []string{"default"} }, `identity "default"`},
		{func(s *ca.TokenSpec) { s.Grant.Identities = []string{"*/payments"} }, `identity "*/payments"`},
		{func(s *ca.TokenSpec) { s.Grant.Identities = []string{"a/b/c"} }, `identity "a/b/c"`},
		{
			func(s *ca.TokenSpec) { s.Grant.Identities = []string{"isthmus-system/gateway"} },
			`is for gateways; make the token with role gateway`,
		},
		{func(s *ca.TokenSpec) { s.Grant.Identities = []string{"isthmus-system/*"} }, `is for gateways`},
		{
			func(s *ca.TokenSpec) { s.Role, s.Grant.Identities = "gateway", []string{"default/payments"} },
			`a gateway's identity is isthmus-system/<service account>`,
		},
		{func(s *ca.TokenSpec) { s.Role, s.Grant.Identities = "gateway", []string{"*"} }, `a gateway's identity is`},
		{func(s *ca.TokenSpec) { s.Addresses = nil }, `0 addresses of the control plane`},
		{
			func(s *ca.TokenSpec) { s.Addresses = []string{"10.0.0.1"} },
			`address "10.0.0.1" of the control plane: say host:port`,
		},
	} {
		spec := good
		test.change(&spec)
		if _, err := a.CreateToken(t.Context(), spec); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: got %v, want it to say %q", spec, err, test.want)
		}
	}
}

func TestAttest(t *testing.T) {
	b := newBench(t)
	a := b.start(t)
	token := newToken(t, a, "n1")
	if _, err := a.Attest(t.Context(), token, []byte("no request"), "10.0.0.7"); !errors.Is(err, ca.ErrCSR) {
		t.Fatalf("got %v", err)
	}
	got, err := a.Attest(t.Context(), token, csr(t, nil), "10.0.0.7") // the bad request did not use it up
	check(t, err)
	leaf := parse(t, got.Chain)[0]
	if got.Node != "n1" || got.Role != "node" || leaf.URIs[0].String() != "spiffe://cards.example/isthmus/node/n1" ||
		string(got.Roots) != string(a.Roots()) {
		t.Errorf("got %+v, %v", got.TokenGrant, leaf.URIs)
	}
	n := must(b.db.Node(t.Context(), "n1"))
	if fmt.Sprint(n.Grant.Identities) != "[default/*]" || !n.Attested.Equal(noon) {
		t.Errorf("node %+v", n)
	}
}

func TestTokenRefusalsAreRecordedAndLookAlike(t *testing.T) {
	b := newBench(t)
	a := b.start(t)
	used, old := newToken(t, a, "n1"), newToken(t, a, "n2")
	must(a.Redeem(t.Context(), used, "10.0.0.7"))
	stranger := newToken(t, newBench(t).start(t), "n1")
	b.set(noon.Add(15 * time.Minute))
	for _, test := range []struct {
		token string
		want  error
	}{
		{used, ca.ErrTokenUsed},
		{old, ca.ErrTokenExpired},
		{stranger, ca.ErrTokenUnknown},
		{otherSecret(t, old), ca.ErrTokenUnknown},
		{"isthmus-join-v1.", ca.ErrTokenMalformed},
	} {
		_, err := a.Redeem(t.Context(), test.token, "10.0.0.66")
		if !errors.Is(err, test.want) || !errors.Is(err, ca.ErrToken) {
			t.Errorf("got %v, want %v", err, test.want)
		}
	}
	got := map[string]int{}
	for _, r := range must(b.db.Events(t.Context(), state.EventFilter{})) {
		if r.From != "10.0.0.66" || r.Action != "node join" || r.Outcome != "refused" ||
			!r.Time.Equal(noon.Add(15*time.Minute)) {
			t.Errorf("refusal %+v", r)
		}
		got[r.Detail] += r.Count
	}
	if fmt.Sprint(got) != "map[expired:1 unknown:1 used already:1 wrong secret:1]" {
		t.Errorf("recorded %v", got)
	}
}

// otherSecret is a token with the right ID and a guessed secret.
func otherSecret(t *testing.T, token string) string {
	t.Helper()
	raw := must(base64.RawURLEncoding.DecodeString(strings.TrimPrefix(token, "isthmus-join-v1.")))
	var body map[string]any
	check(t, json.Unmarshal(raw, &body))
	body["secret"] = base64.RawURLEncoding.EncodeToString(make([]byte, 32))
	return "isthmus-join-v1." + base64.RawURLEncoding.EncodeToString(must(json.Marshal(body)))
}

func TestOfAHundredRacingJoinsOneWins(t *testing.T) {
	b := newBench(t)
	a := b.start(t)
	token := newToken(t, a, "n1")
	request := csr(t, nil)
	errs := make([]error, 100)
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			<-start
			_, errs[i] = a.Attest(t.Context(), token, request, "10.0.0.7")
		})
	}
	close(start)
	wg.Wait()
	won, used := 0, 0
	for _, err := range errs {
		switch {
		case err == nil:
			won++
		case errors.Is(err, ca.ErrTokenUsed):
			used++
		default:
			t.Errorf("unexpected: %v", err)
		}
	}
	if won != 1 || used != 99 {
		t.Errorf("%d joined, %d were told that it was used; want 1 and 99", won, used)
	}
	if n := len(must(b.db.Certs(t.Context(), state.CertFilter{Node: "n1"}))); n != 1 {
		t.Errorf("%d certificates issued, want 1", n)
	}
	if r := must(b.db.Events(t.Context(), state.EventFilter{})); len(r) != 1 || r[0].Count != 99 {
		t.Errorf("recorded %+v", r)
	}
}

func TestSecretRedactsItself(t *testing.T) {
	type hidden struct{ s ca.Secret }
	s := ca.NewSecret("open sesame")
	var log logtest.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "secret", s, "inside", hidden{s}, "pointer", &s)
	shown := log.String() + s.String() + string(must(json.Marshal(s))) +
		string(must(json.Marshal(map[string]any{"a": &s}))) +
		fmt.Sprintf("%v %+v %#v %s %q %x %d %T %v %+v %#v", s, s, s, s, s, s, s, s, hidden{s}, hidden{s}, hidden{s})
	for _, leak := range []string{"sesame", "6f70656e", "111 112 101"} {
		if strings.Contains(shown, leak) {
			t.Errorf("%q is shown in %s", leak, shown)
		}
	}
	if s.Reveal() != "open sesame" || (ca.Secret{}).Reveal() != "" {
		t.Error("Reveal does not reveal")
	}
}
