package federation

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/spiffe"
)

func TestCatalogueIsTakenInOrderOnly(t *testing.T) {
	cards, retail, _ := pair(t)
	join(t, cards, retail)
	peer := http.Header{HeaderPeer: {"retail"}}
	push := func(sequence int, name string) (int, string) {
		return cards.post(cards.asGateway(), PathCatalogue, peer,
			strings.NewReader(fmt.Sprintf(`{"sequence":%d,"services":[{"name":%q,"namespace":"default","port":1,"protocol":"TCP"}]}`, sequence, name)))
	}
	for _, step := range []struct {
		sequence int
		name     string
		code     int
		held     string
	}{{5, "a", 204, "a"}, {4, "b", 409, "a"}, {5, "b", 409, "a"}, {5, "a", 409, "a"}, {6, "c", 204, "c"}} {
		code, text := push(step.sequence, step.name)
		if code != step.code {
			t.Errorf("%+v: %d %s", step, code, text)
		}
		if code == 409 && !strings.Contains(text, `"sequence":5`) {
			t.Errorf("does not say what is held: %s", text)
		}
		if got := cards.snapshot().Peers["retail"].Catalogue.Services[0].Name; got != step.held {
			t.Errorf("%+v: held %s", step, got)
		}
	}
	if err := cards.Suspend(t.Context(), "retail"); err != nil {
		t.Fatal(err)
	}
	if code, text := push(7, "d"); code != 403 || !strings.Contains(text, "nothing may pass") {
		t.Errorf("suspended: %d %s", code, text)
	}
}

func TestLargestCatalogueIsTaken(t *testing.T) {
	cards, retail, _ := pair(t)
	join(t, cards, retail)
	services := make([]snapshot.OfferedService, 1000)
	for i := range services {
		label := fmt.Sprintf("%063d", i)
		services[i] = snapshot.OfferedService{Name: label, Namespace: label, Port: 65535, Protocol: "HTTP2"}
	}
	doc, err := EncodeCatalogue(1, services)
	if err != nil {
		t.Fatal(err)
	}
	code, text := cards.post(cards.asGateway(), PathCatalogue, http.Header{HeaderPeer: {"retail"}}, strings.NewReader(string(doc)))
	if code != 204 || len(cards.snapshot().Peers["retail"].Catalogue.Services) != 1000 {
		t.Errorf("%d bytes: %d %s", len(doc), code, text)
	}
}

// A peer that remembers a later catalogue than ours (our state was restored from a copy) says so, and we go on from there.
func TestPushGoesOnAboveWhatThePeerHolds(t *testing.T) {
	cards, retail, _ := pair(t)
	join(t, cards, retail)
	old := snapshot.Catalogue{Sequence: 1000, Services: []snapshot.OfferedService{{Name: "old", Namespace: "default", Port: 1, Protocol: "TCP"}}}
	if err := retail.db.SetPeerCatalogue(t.Context(), "cards", old); err != nil {
		t.Fatal(err)
	}
	sequence, err := cards.push(t.Context(), "retail", nil, "digest")
	if err != nil || sequence != 1001 {
		t.Errorf("%d %v", sequence, err)
	}
	if got := retail.snapshot().Peers["cards"].Catalogue; got.Sequence != 1001 || len(got.Services) != 0 {
		t.Errorf("held %+v", got)
	}
}

func TestCatalogueIsPushedAnewAtReconnect(t *testing.T) {
	cards, retail, n := pair(t)
	join(t, cards, retail)
	cards.live()
	eventually(t, "pushed", func() bool { return cards.Health("retail").PushedSequence == 1 })
	n.setCut(true)
	eventually(t, "cut", func() bool { return cards.Health("retail").RefreshError != "" })
	n.setCut(false)
	eventually(t, "pushed anew", func() bool { return cards.Health("retail").PushedSequence == 2 })
}

func TestAcceptorChecksTheAnswer(t *testing.T) {
	cards, retail, _ := pair(t)
	tok := invite(t, cards, "retail")
	good, err := cards.introduce(t.Context(), "retail")
	if err != nil {
		t.Fatal(err)
	}
	gateway, err := spiffe.Parse(cards.asGateway())
	if err != nil {
		t.Fatal(err)
	}
	other := newAuthority(t, "other")
	tests := map[string]struct {
		change func(*self)
		says   string
	}{
		"good":                   {func(*self) {}, ""},
		"another trust domain":   {func(s *self) { s.TrustDomain, s.GatewayIDs = "bank.example", []string{"spiffe://bank.example/a"} }, "it is of trust domain bank.example"},
		"another name for us":    {func(s *self) { s.KnownAs = "shop" }, "it knows this mesh as shop"},
		"without the root":       {func(s *self) { s.Bundle = json.RawMessage(jwks(other.cert)) }, "lacks the root"},
		"another gateway":        {func(s *self) { s.GatewayIDs = []string{"spiffe://cards.example/ns/a/sa/b"} }, "does not name as a gateway"},
		"a gateway outside":      {func(s *self) { s.GatewayIDs = append(s.GatewayIDs, "spiffe://bank.example/a") }, "outside of trust domain"},
		"a loopback for gateway": {func(s *self) { s.Addresses[0] = loopback }, "cannot be reached from another mesh"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			answer := good
			answer.Addresses = append(answer.Addresses[:0:0], good.Addresses...)
			tt.change(&answer)
			raw, err := json.Marshal(answer)
			if err != nil {
				t.Fatal(err)
			}
			_, err = retail.checkAnswer(tok, raw, gateway)
			if tt.says == "" && err != nil || tt.says != "" && (err == nil || !strings.Contains(err.Error(), tt.says)) {
				t.Errorf("got %v, want %q", err, tt.says)
			}
		})
	}
	if _, err := retail.checkAnswer(tok, []byte(`{"surprise":1}`), gateway); err == nil {
		t.Error("another shape is taken")
	}
}

var loopback = netip.MustParseAddrPort("127.0.0.1:15443")

func TestBackoffAndJitter(t *testing.T) {
	var got []time.Duration
	for n := 1; n <= 5; n++ {
		got = append(got, backoff(n, 5*time.Second, 30*time.Second))
	}
	if want := "[5s 10s 20s 30s 30s]"; fmt.Sprint(got) != want {
		t.Errorf("%v, want %s", got, want)
	}
	for range 1000 {
		if d := jitter(10 * time.Second); d < 8*time.Second || d > 10*time.Second {
			t.Fatalf("%s", d)
		}
	}
}
