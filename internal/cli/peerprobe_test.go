package cli

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"isthmus.dev/isthmus/internal/adminapi"
)

func probeAnswer() adminapi.PeerProbeResponse {
	return adminapi.PeerProbeResponse{
		Peer: "cards", Import: "default/payments", Asked: "payments.default.retail.fed.cards.example",
		Took: 5630 * time.Microsecond, Proves: "it works",
		Legs: []adminapi.ProbeLeg{
			{From: "this mesh", To: "cards", Step: "consent", State: "ok", Detail: "trusted"},
			{
				From: "own gateway", To: "gateway of cards", Step: "connect", State: "ok", Took: 320 * time.Microsecond,
				Detail: "198.51.100.11:15443",
			},
			{
				From: "own gateway", To: "gateway of cards", Step: "handshake", State: "ok",
				Took: 1200 * time.Microsecond,
			},
		},
	}
}

func TestProbeText(t *testing.T) {
	same(t, probeText(probeAnswer()), `STATE   FROM         TO                STEP       TIME     DETAIL
√ well  this mesh    cards             consent    -        trusted
√ well  own gateway  gateway of cards  connect    0.32 ms  198.51.100.11:15443
√ well  own gateway  gateway of cards  handshake  1.20 ms  -

Answered in 5.63 ms. Proven: it works.
`)
	r := probeAnswer()
	r.Legs[1] = adminapi.ProbeLeg{
		From: "own gateway", To: "gateway of cards", Step: "connect", State: "failed", Detail: "nobody\x1b listens",
		Remedy: "start it",
	}
	r.Legs[2].State, r.Legs[2].Took = "untried", 0
	same(t, probeText(r), `STATE        FROM         TO                STEP       TIME  DETAIL
√ well       this mesh    cards             consent    -     trusted
× broken     own gateway  gateway of cards  connect    -     see below
· not tried  own gateway  gateway of cards  handshake  -     -

× connect of gateway of cards: nobody? listens
    → start it
`)
}

func TestProbeCommand(t *testing.T) {
	f := &fake{probe: probeAnswer()}
	socket := serve(t, f)
	expect(t, run(t, "", "peer", "probe", "cards", "--socket", socket), 0)
	for flag, want := range map[string]string{"payments": "default/payments", "shop/payments": "shop/payments"} {
		expect(t, run(t, "", "peer", "probe", "cards", "--socket", socket, "--import", flag), 0)
		if diff := cmp.Diff(adminapi.PeerProbeRequest{Peer: "cards", Import: want}, f.asked); diff != "" {
			t.Error(diff)
		}
	}
	f.probe.Legs[2].State = "untried"
	if got := run(t, "", "peer", "probe", "cards", "--socket", socket, "-o", "yaml"); got.code != 79 || got.err != "" {
		t.Errorf("a broken leg: exit code %d, %q", got.code, got.err)
	}
	expect(t, run(t, "", "peer", "probe", "--socket", socket), 64, "the peer's name")
}
