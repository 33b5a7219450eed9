package federation

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/wellknown"
)

const (
	goodEgress  = "connect=310 handshake=1200 answer=900 at=192.0.2.1:15443"
	goodIngress = "answer=600 sni="
	payments    = "payments.default.retail.fed.cards.example"
)

// road stands for both gateways: it answers what retail's control plane sends to its own, with cards' control plane
// behind.
type road struct {
	t     *testing.T
	cards *mesh
	// egress and ingress are what the gateways write; status, when not 0, is what one of them answers by itself.
	egress, ingress string
	status          int
	asked           atomic.Pointer[http.Request]
	dials           atomic.Int32
}

// probed is two peers, and the road between them.
func probed(t *testing.T) (retail *mesh, r *road) {
	cards, retail, _ := pair(t)
	join(t, cards, retail)
	r = &road{t: t, cards: cards, egress: goodEgress, ingress: goodIngress}
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	retail.Gateways = only(func(ctx context.Context, sni string) (net.Conn, error) {
		r.dials.Add(1)
		if sni != "probe.cards" {
			return nil, errors.New("no chain for " + sni)
		}
		return (&net.Dialer{}).DialContext(ctx, "tcp", server.Listener.Addr().String())
	})
	return retail, r
}

func (r *road) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	r.asked.Store(q)
	w.Header().Set(wellknown.HeaderEgressLeg, r.egress)
	if r.status != 0 {
		w.WriteHeader(r.status)
		return
	}
	ingress := r.ingress
	if ingress == goodIngress {
		if ingress += q.Header.Get(wellknown.HeaderProbe); ingress == goodIngress {
			ingress += "probe.retail.fed.cards.example"
		}
	}
	w.Header().Set(wellknown.HeaderIngressLeg, ingress)
	q.Header.Set(HeaderPeer, "retail")
	r.cards.probes().ServeHTTP(w, q)
}

func (m *mesh) probeNow(target Target) *adminapi.PeerProbeResponse {
	m.t.Helper()
	got, err := m.Probe(m.t.Context(), "cards", target)
	if err != nil {
		m.t.Fatal(err)
	}
	return got
}

// states are the legs' states in short: "ok ok failed untried".
func states(r *adminapi.PeerProbeResponse) string {
	var out []string
	for _, l := range r.Legs {
		out = append(out, l.State)
		if (l.State == adminapi.LegFailed) != (l.Remedy != "") {
			out = append(out, "(remedy: "+l.Remedy+")")
		}
	}
	return strings.Join(out, " ")
}

func TestProbeMeasuresEachLeg(t *testing.T) {
	retail, r := probed(t)
	got := retail.probeNow(Target{})
	if s := states(got); s != "ok ok ok ok ok ok ok" || got.Asked != "probe.retail.fed.cards.example" {
		t.Fatalf("%s: %+v", s, got)
	}
	want := map[int]time.Duration{
		3: 310 * time.Microsecond, 4: 1200 * time.Microsecond, 5: 900 * time.Microsecond, 6: 600 * time.Microsecond,
	}
	for leg, took := range want {
		if got.Legs[leg].Took != took {
			t.Errorf("leg %d: %+v, want %s", leg, got.Legs[leg], took)
		}
	}
	for _, leg := range got.Legs[1:3] {
		if leg.Took <= 0 || leg.Took > got.Took {
			t.Errorf("%+v of %s", leg, got.Took)
		}
	}
	if q := r.asked.Load(); q.URL.String() != "/v1/probe" || q.Host != "probe.cards" ||
		q.Header.Get(wellknown.HeaderProbe) != "" {
		t.Errorf("asked %s of %s, %v", q.URL, q.Host, q.Header)
	}
}

func TestProbeOfAnImport(t *testing.T) {
	retail, r := probed(t)
	exported, ready := true, true
	r.cards.Export = func(peer, sni string) (bool, bool) {
		return exported && peer == "retail" && sni == payments,
			ready
	}
	http := Target{Import: "default/payments", SNI: payments, HTTP: true}
	got := retail.probeNow(http)
	if s := states(got); s != "ok ok ok ok ok ok ok ok" || got.Asked != payments ||
		r.asked.Load().Header.Get(wellknown.HeaderProbe) != payments {
		t.Errorf("over HTTP: %s: %+v", s, got)
	}
	ready = false
	if s := states(retail.probeNow(http)); s != "ok ok ok ok ok ok ok failed" {
		t.Errorf("nothing ready: %s", s)
	}
	exported = false
	got = retail.probeNow(Target{Import: "default/payments", SNI: payments})
	if s := states(got); s != "ok ok ok ok ok ok ok failed" || got.Asked != "probe.retail.fed.cards.example" ||
		r.asked.Load().Header.Get(wellknown.HeaderProbe) != "" {
		t.Errorf("not exported, raw: %s: %+v", s, got)
	}
}

// What was measured under another name is not taken for the export's.
func TestProbeUnderAnotherName(t *testing.T) {
	retail, r := probed(t)
	r.cards.Export = func(string, string) (bool, bool) { return true, true }
	r.ingress = "answer=600 sni=probe.retail.fed.cards.example"
	if s := states(retail.probeNow(Target{
		Import: "default/payments", SNI: payments, HTTP: true,
	})); s != "ok ok ok ok failed ok ok ok" {
		t.Error(s)
	}
}

func TestProbeNamesTheBrokenLeg(t *testing.T) {
	const reset = "upstream_reset_before_response_started{remote_connection_failure|TLS_error:|33554536:system_library:OPENSSL_internal:Connection_reset_by_peer:TLS_error_end}"
	for _, tt := range []struct {
		name, egress, ingress string
		status                int
		want, detail          string
	}{
		{
			"nobody listens",
			"failed=UF at=192.0.2.1:15443 reason=upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}", "", 503,
			"ok ok ok failed untried untried untried", "nobody listens at 192.0.2.1:15443",
		},
		{
			"silence", "failed=UF at=192.0.2.1:15443 reason=upstream_reset_before_response_started{connection_timeout}",
			"", 503,
			"ok ok ok failed untried untried untried", "within 2 s",
		},
		{
			"no such name there", "failed=UF at=192.0.2.1:15443 reason=" + reset, "", 503,
			"ok ok ok ok failed untried untried", "revoked or never accepted",
		},
		{
			"another root there",
			"failed=UF at=192.0.2.1:15443 reason=upstream_reset_before_response_started{remote_connection_failure|TLS_error:|268435581:SSL_routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:TLS_error_end}", "", 503,
			"ok ok ok ok failed untried untried", "does not accept for a gateway of cards",
		},
		{
			"they know another root",
			"failed=UC at=192.0.2.1:15443 reason=upstream_reset_before_response_started{connection_termination|TLS_error:|268436528:SSL_routines:OPENSSL_internal:TLSV1_ALERT_UNKNOWN_CA:TLS_error_end}", "", 503,
			"ok ok ok ok failed untried untried", "does not accept this mesh's gateway",
		},
		{
			"they refuse our gateway",
			"failed=UF at=192.0.2.1:15443 reason=upstream_reset_before_response_started{remote_connection_failure|TLS_error:|268436498:SSL_routines:OPENSSL_internal:SSLV3_ALERT_BAD_CERTIFICATE:TLS_error_end}", "", 503,
			"ok ok ok ok failed untried untried", "does not accept this mesh's gateway",
		},
		{
			"no gateway at all",
			"failed=UF at=192.0.2.1:15443 reason=upstream_reset_before_response_started{remote_connection_failure|TLS_error:|268435703:SSL_routines:OPENSSL_internal:WRONG_VERSION_NUMBER:TLS_error_end}", "", 503,
			"ok ok ok ok failed untried untried", "does not speak TLS 1.3",
		},
		{
			"their gateway hangs", "failed=UT at=192.0.2.1:15443 reason=response_timeout", "", 504,
			"ok ok ok ok ok failed untried", "did not answer",
		},
		{
			"something else", "failed=UH at=- reason=no_healthy_upstream", "", 503,
			"ok ok ok failed untried untried untried", "no_healthy_upstream",
		},
		{
			"their control plane is away", goodEgress, "", 503,
			"ok ok ok ok ok ok failed", "does not answer its gateway",
		},
		{
			"their gateway is older", goodEgress, "", 404,
			"ok ok ok ok ok ok failed", "older version",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			retail, r := probed(t)
			r.egress, r.ingress, r.status = tt.egress, tt.ingress, tt.status
			got := retail.probeNow(Target{})
			i := slices.IndexFunc(got.Legs, func(l adminapi.ProbeLeg) bool { return l.State == adminapi.LegFailed })
			if s := states(got); s != tt.want || !strings.Contains(got.Legs[i].Detail, tt.detail) {
				t.Errorf("%s: %+v", s, got.Legs)
			}
		})
	}
}

func TestProbeOfTheOwnSide(t *testing.T) {
	retail, r := probed(t)
	if _, err := retail.Probe(t.Context(), "nobody", Target{}); err == nil ||
		!strings.Contains(err.Error(), `no peer "nobody"`) {
		t.Error(err)
	}
	retail.Gateways = only(func(context.Context, string) (net.Conn, error) {
		return nil, errors.New("gateway gw at 10.0.0.1: refused")
	})
	if s := states(retail.probeNow(Target{})); s != "ok failed untried untried untried untried untried" {
		t.Error("own gateway away:", s)
	}
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mute.Close() })
	go func() {
		for c, err := mute.Accept(); err == nil; c, err = mute.Accept() {
			c.Close()
		}
	}()
	retail.Gateways = only(func(ctx context.Context, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", mute.Addr().String())
	})
	if s := states(retail.probeNow(Target{})); s != "ok ok failed untried untried untried untried" {
		t.Error("own gateway hangs up:", s)
	}
	if err := retail.Suspend(t.Context(), "cards"); err != nil {
		t.Fatal(err)
	}
	if s := states(retail.probeNow(Target{})); s != "failed untried untried untried untried untried untried" ||
		r.dials.Load() != 0 {
		t.Error("suspended here:", s)
	}
}

func TestProbesAreBounded(t *testing.T) {
	retail, r := probed(t)
	probes, peers := r.cards.probes(), r.cards.peerHandler()
	ask := func(path string, h http.Handler) int {
		w, q := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, path, nil)
		q.Header.Set(HeaderPeer, "retail")
		q.TLS = shown(t, r.cards.asPeer(retail, "retail"))
		h.ServeHTTP(w, q)
		return w.Code
	}
	codes := map[int]int{}
	for range 20 {
		codes[ask(wellknown.ProbePath, probes)]++
	}
	if codes[200] < 5 || codes[200] > 9 || codes[429] != 20-codes[200] {
		t.Errorf("answers by status: %v", codes)
	}
	if code := ask(PathBundle, peers); code != 200 {
		t.Errorf("after a flood of probes the bundle is answered with %d", code)
	}
	got := retail.probeNow(Target{})
	if s := states(got); s != "ok ok ok ok ok ok failed" ||
		!strings.Contains(got.Legs[control].Detail, "too many probes") {
		t.Errorf("%s: %+v", s, got.Legs[control])
	}
	var refused int
	for range 20 {
		if _, err := retail.Probe(t.Context(), "cards", Target{}); err != nil {
			refused++
		}
	}
	if refused < 10 || int(r.dials.Load()) != 21-refused {
		t.Errorf("%d refused on the own side, %d sent", refused, r.dials.Load())
	}
}

func TestProbesCanBeRefused(t *testing.T) {
	retail, r := probed(t)
	before := r.cards.Snapshot
	r.cards.Snapshot = func() *snapshot.Snapshot {
		snap := before()
		peer := *snapshot.Of[*v1alpha1.MeshPeer](snap.Config)[0]
		peer.Spec.RefuseProbes = true
		snap.Config = snap.Config.With(snapshot.PutAll(&peer))
		return snap
	}
	got := retail.probeNow(Target{})
	if s := states(got); s != "ok ok ok ok ok ok failed" ||
		!strings.Contains(got.Legs[control].Detail, "refuseProbes") {
		t.Errorf("%s: %+v", s, got.Legs[control])
	}
}

// What gateways write is a stranger's text as far as the peer's goes.
func TestReadLeg(t *testing.T) {
	for text, want := range map[string]leg{
		goodEgress: {
			connect: 310 * time.Microsecond, handshake: 1200 * time.Microsecond, answer: 900 * time.Microsecond,
			at: "192.0.2.1:15443",
		},
		"answer=0":                           {answer: time.Microsecond},
		"answer=-1 connect=1e9 handshake=0x": {},
		"answer=99999999999999999999 at=-":   {},
		"answer=4294967296 connect=0x10":     {},
		"failed=UF reason=a b=c \x1b[2J":     {failed: "UF", reason: "a b=c [2J"},
		"sni=" + strings.Repeat("x", 9000):   {sni: strings.Repeat("x", 253) + "…"},
		"":                                   {},
	} {
		if got := readLeg(text); got != want {
			t.Errorf("%.40q: %+v, want %+v", text, got, want)
		}
	}
}
