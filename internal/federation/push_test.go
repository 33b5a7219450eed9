package federation

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/state"
)

func TestCatalogueIsTakenInOrderOnly(t *testing.T) {
	cards, retail, _ := pair(t)
	join(t, cards, retail)
	push := func(sequence int, name string) (int, string) {
		return cards.post(cards.asPeer(retail, "retail"), PathCatalogue,
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

// Nobody's number can jam: what is a time to come is refused, and what was once taken from such a time does not count.
func TestNoSequenceBlocksWhatFollows(t *testing.T) {
	cards, retail, _ := pair(t)
	join(t, cards, retail)
	push := func(sequence uint64) (int, string) {
		return cards.post(cards.asPeer(retail, "retail"), PathCatalogue,
			strings.NewReader(fmt.Sprintf(`{"sequence":%d,"services":[]}`, sequence)))
	}
	hour := uint64(time.Now().Add(time.Hour).UnixMicro())
	for _, sequence := range []uint64{1 << 62, 1<<63 - 1, 1 << 63, 1<<64 - 1, hour} {
		if code, text := push(sequence); code != 400 || !strings.Contains(text, "check the clocks of both sides") {
			t.Errorf("%d: %d %s", sequence, code, text)
		}
	}
	cards.skip(2 * time.Hour) // a clock that was wrong for a while
	if code, text := push(hour); code != 204 {
		t.Fatalf("%d %s", code, text)
	}
	cards.skip(-2 * time.Hour)
	if code, text := push(uint64(time.Now().UnixMicro())); code != 204 {
		t.Errorf("after the clock was set right: %d %s", code, text)
	}
	td := domain(t, "cards.example")
	for _, sequence := range []uint64{1<<63 - 1, 1<<64 - 1, hour} {
		doc, err := Bundle{TrustDomain: td, Roots: certs(cards.root), Sequence: sequence}.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseBundle(td, doc, time.Now()); err == nil ||
			!strings.Contains(err.Error(), "check the clocks of both sides") {
			t.Errorf("a bundle numbered %d: %v", sequence, err)
		}
	}
	// Taken while our own clock was ahead.
	if err := retail.db.SetPeerBundle(t.Context(), "cards", retail.snapshot().Peers["cards"].Roots, hour,
		retail.snapshot().Peers["cards"].BundleSequence, time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := retail.takeBundle(t.Context(), "cards",
		Bundle{TrustDomain: td, Roots: certs(cards.root), Sequence: uint64(time.Now().UnixMicro())}); err != nil {
		t.Error(err)
	}
	if got := retail.snapshot().Peers["cards"].BundleSequence; got >= hour {
		t.Errorf("still at %d", got)
	}
}

// What a peer's control plane was refused is written down.
func TestRefusedCatalogueIsRecorded(t *testing.T) {
	cards, retail, _ := pair(t)
	join(t, cards, retail)
	cards.post(cards.asPeer(retail, "retail"), PathCatalogue,
		strings.NewReader(`{"sequence":4611686018427387904,"services":[]}`))
	stolen := cards.asPeer(retail, "retail")
	stolen.control = retail.gateway
	cards.post(stolen, PathCatalogue, strings.NewReader(`{"sequence":1,"services":[]}`))
	events := cards.events(state.EventFilter{})
	var got []string
	for _, e := range events {
		got = append(got, strings.Join([]string{e.Actor, e.Action, e.Object, e.Outcome}, "|"))
	}
	slices.Sort(got)
	want := []string{
		"peer retail|peer catalogue|peer retail|refused", "peer retail|peer redeem|peer retail|ok",
		"stranger|peer ask|control.retail.fed.cards.example|refused",
	}
	if !slices.Equal(got, want) {
		t.Errorf("recorded\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
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
	code, text := cards.post(cards.asPeer(retail, "retail"), PathCatalogue, strings.NewReader(string(doc)))
	if code != 204 || len(cards.snapshot().Peers["retail"].Catalogue.Services) != 1000 {
		t.Errorf("%d bytes: %d %s", len(doc), code, text)
	}
}

// A peer that remembers a later catalogue than ours (our clock was set back) says so, and we go on from there.
func TestPushGoesOnAboveWhatThePeerHolds(t *testing.T) {
	cards, retail, _ := pair(t)
	join(t, cards, retail)
	old := snapshot.Catalogue{
		Sequence: uint64(time.Now().Add(time.Minute).UnixMicro()),
		Services: []snapshot.OfferedService{{Name: "old", Namespace: "default", Port: 1, Protocol: "TCP"}},
	}
	var held uint64
	if c := retail.snapshot().Peers["cards"].Catalogue; c != nil {
		held = c.Sequence
	}
	if err := retail.db.SetPeerCatalogue(t.Context(), "cards", old, held); err != nil {
		t.Fatal(err)
	}
	sequence, err := cards.pushCatalogue(t.Context(), "retail", nil)
	if err != nil || sequence != old.Sequence+1 {
		t.Errorf("%d %v", sequence, err)
	}
	if got := retail.snapshot().Peers["cards"].Catalogue; got.Sequence != old.Sequence+1 || len(got.Services) != 0 {
		t.Errorf("held %+v", got)
	}
}

func TestCatalogueIsPushedAnewAtReconnect(t *testing.T) {
	cards, retail, n := pair(t)
	join(t, cards, retail)
	cards.live()
	eventually(t, "pushed", func() bool { return cards.Health("retail").PushedSequence > 0 })
	first := cards.Health("retail").PushedSequence
	n.setCut(true)
	eventually(t, "cut", func() bool { return cards.Health("retail").RefreshError != "" })
	n.setCut(false)
	eventually(t, "pushed anew", func() bool { return cards.Health("retail").PushedSequence > first })
}

func TestAcceptorChecksTheAnswer(t *testing.T) {
	cards, retail, _ := pair(t)
	tok := invite(t, cards, "retail")
	good, err := cards.introductionTo(t.Context(), "retail")
	if err != nil {
		t.Fatal(err)
	}
	other := newAuthority(t, "other")
	tests := map[string]struct {
		change func(*self)
		says   string
	}{
		"good": {func(*self) {}, ""},
		"another trust domain": {
			func(s *self) { s.TrustDomain, s.GatewayIDs = "bank.example", []string{"spiffe://bank.example/a"} },
			"it is of trust domain bank.example",
		},
		"another name for us": {func(s *self) { s.KnownAs = "shop" }, "it knows this mesh as shop"},
		"without the root": {
			func(s *self) { s.Bundle = json.RawMessage(jwks(other.cert)) }, "its roots, gateway identities",
		},
		"another gateway": {
			func(s *self) { s.GatewayIDs = []string{"spiffe://cards.example/ns/a/sa/b"} },
			"are not those of the token",
		},
		"one more gateway": {
			func(s *self) { s.GatewayIDs = append(s.GatewayIDs, "spiffe://cards.example/ns/a/sa/b") },
			"are not those of the token",
		},
		"another address": {
			func(s *self) { s.Addresses[0] = netip.MustParseAddrPort("192.0.2.66:15443") },
			"are not those of the token",
		},
		"one more address": {
			func(s *self) { s.Addresses = append(s.Addresses, netip.MustParseAddrPort("192.0.2.66:15443")) },
			"are not those of the token",
		},
		"one more root": {
			func(s *self) { s.Bundle = json.RawMessage(jwks(cards.root.cert, other.cert)) },
			"are not those of the token",
		},
		"a gateway outside": {
			func(s *self) { s.GatewayIDs = append(s.GatewayIDs, "spiffe://bank.example/a") },
			"outside of trust domain",
		},
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
			_, err = retail.checkAnswer(tok, raw)
			if tt.says == "" && err != nil || tt.says != "" && (err == nil || !strings.Contains(err.Error(), tt.says)) {
				t.Errorf("got %v, want %q", err, tt.says)
			}
		})
	}
	if _, err := retail.checkAnswer(tok, []byte(`{"surprise":1}`)); err == nil {
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

// What was offered for a while and never pushed, as while a peer is suspended, leaves nobody behind once it is as it
// was.
func TestCatalogueThatReturnsIsInStep(t *testing.T) {
	cards, retail, _ := pair(t)
	join(t, cards, retail)
	cards.live()
	retail.live()
	synced := func() bool { return cards.Health("retail").Behind.IsZero() && !cards.Health("retail").PushOK.IsZero() }
	eventually(t, "retail has the catalogue", synced)
	cards.updateHealth("retail", func(h *Health) {
		h.PushError = "no route"
		h.wants("of another catalogue",
			cards.Now())
	})
	if synced() {
		t.Fatal("the peer is not behind")
	}
	cards.Wake()
	eventually(t, "retail has what is offered again",
		func() bool { return synced() && cards.Health("retail").PushError == "" })
}
