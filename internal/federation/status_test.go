package federation

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/peerrules"
	"isthmus.dev/isthmus/internal/snapshot"
)

func TestConditions(t *testing.T) {
	now := time.Now()
	root := newAuthority(t, "cards")
	base := introduction{
		TrustDomain: domain(t, "cards.example"), KnownAs: "retail", Bundle: Bundle{Roots: certs(root)},
	}.meshPeer("cards")
	base.Spec.GatewayAddresses = []string{"192.0.2.1:15443"}
	type facts struct {
		p *v1alpha1.MeshPeer
		s snapshot.PeerState
		h Health
	}
	tests := map[string]struct {
		change func(*facts)
		want   map[string]string // condition: "Status Reason: part of message"
	}{
		"all well": {func(*facts) {}, map[string]string{
			TrustEstablished: "True RootsKnown: bound to cards.example",
			BundleFresh:      "True Confirmed: confirmed 1m0s ago, sequence 7",
			CatalogueSynced:  "True Synced: the peer has our catalogue 3; it offers 0",
			DataPathReady:    "True Answered: answers through both gateways", Expiring: "False NotSoon: neither",
			Suspended: "False NotSuspended: not", Revoked: "False NotRevoked: not",
		}},
		"suspended": {func(f *facts) { f.s.Suspended = true }, map[string]string{
			TrustEstablished: "True RootsKnown: ", Suspended: "True ByCommand: 'isthmus peer resume cards'",
			DataPathReady: "False Suspended: resume", CatalogueSynced: "False Suspended: no catalogue passes",
		}},
		"suspended in file": {
			func(f *facts) { f.p.Spec.Suspend = true },
			map[string]string{Suspended: "True ByMeshPeer: remove spec.suspend"},
		},
		"revoked": {func(f *facts) { f.s.Revoked = true }, map[string]string{
			Revoked: "True ByCommand: 'isthmus peer invite cards'", TrustEstablished: "False Revoked: ",
			DataPathReady: "False Revoked: ",
		}},
		"expiring": {func(f *facts) { f.p.Spec.ExpiresAt = &metav1.Time{Time: now.Add(time.Hour)} }, map[string]string{
			Expiring: "True Peering: set a later spec.expiresAt", DataPathReady: "True Answered: ",
		}},
		"refresh fails": {func(f *facts) { f.h.RefreshError = "no route" }, map[string]string{
			BundleFresh:   "True RefreshFailing: in 23h59m0s unless the refresh succeeds, which now fails: no route",
			DataPathReady: "False Unreachable: 'isthmus peer probe ",
		}},
		"not answered yet": {func(f *facts) {
			f.h = Health{RefreshError: "reset", FailingSince: now.Add(-14 * time.Second)}
		}, map[string]string{
			BundleFresh:   "True Confirmed: ",
			DataPathReady: "Unknown Connecting: in the first seconds of a peering: reset",
		}},
		"never answered": {func(f *facts) {
			f.h = Health{RefreshError: "reset", FailingSince: now.Add(-15 * time.Second)}
		}, map[string]string{BundleFresh: "True RefreshFailing: reset", DataPathReady: "False Unreachable: reset"}},
		"stale": {
			func(f *facts) { f.s.BundleTime, f.h.RefreshError = now.Add(-25*time.Hour), "no route" },
			map[string]string{
				BundleFresh: "False Stale: for why the refresh fails: no route", DataPathReady: "False Stale: ",
				TrustEstablished: "True RootsKnown: ",
			},
		},
		"no roots yet": {func(f *facts) {
			f.s.Roots, f.p.Spec.Bundle = nil,
				v1alpha1.PeerBundle{Fingerprint: testPrint}
		}, map[string]string{
			TrustEstablished: "False NoRoots: spec.bundle.fingerprint", DataPathReady: "False NoRoots: ",
		}},
		"push fails": {
			func(f *facts) { f.h.PushError = "too large" },
			map[string]string{CatalogueSynced: "False PushFailing: too large"},
		},
		"not pushed": {
			func(f *facts) { f.h.PushOK = time.Time{} },
			map[string]string{CatalogueSynced: "Unknown NotPushedYet: "},
		},
		"never tried": {func(f *facts) { f.h = Health{} }, map[string]string{
			DataPathReady: "Unknown NotTriedYet: ", CatalogueSynced: "Unknown NotPushedYet: ",
		}},
		"bad file": {
			func(f *facts) { f.h.AdoptError = "shared" },
			map[string]string{TrustEstablished: "False BundleRefused: shared"},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f := facts{
				p: base.DeepCopy(), h: Health{RefreshOK: now, PushOK: now, PushedSequence: 3},
				s: snapshot.PeerState{
					BundleSequence: 7, BundleTime: now.Add(-time.Minute), Catalogue: &snapshot.Catalogue{},
				},
			}
			f.s.Roots = peerrules.Learned(f.p, certs(root))
			tt.change(&f)
			got := map[string]adminapi.Condition{}
			for _, c := range Conditions(now, f.p, f.s, peerrules.Judge(now, f.p, f.s), f.h) {
				got[c.Type] = c
			}
			if len(got) != 7 {
				t.Errorf("%d conditions", len(got))
			}
			for kind, want := range tt.want {
				head, part, _ := strings.Cut(want, ": ")
				if c := got[kind]; c.Status+" "+c.Reason != head || !strings.Contains(c.Message, part) {
					t.Errorf("%s: %s %s: %s; want %s", kind, c.Status, c.Reason, c.Message, want)
				}
			}
		})
	}
}

func TestMetrics(t *testing.T) {
	cards, retail, _ := pair(t)
	join(t, cards, retail)
	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(retail); err != nil {
		t.Fatal(err)
	}
	retail.skip(25 * time.Hour)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if m.GetLabel()[0].GetValue() != "cards" {
				t.Errorf("labels %v", m.GetLabel())
			}
			got[f.GetName()] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	if a := got["isthmus_peer_bundle_age_seconds"]; a < 90000 || a > 90060 {
		t.Errorf("age %v", a)
	}
	if end := got["isthmus_peer_root_expiry_timestamp_seconds"]; end != float64(cards.root.cert.NotAfter.Unix()) {
		t.Errorf("end %v", end)
	}
	for _, name := range []string{
		"isthmus_peer_live", "isthmus_peer_catalogue_lag_seconds", "isthmus_peer_offered_services",
		"isthmus_peer_refresh_failures_total", "isthmus_peer_catalogue_push_failures_total",
	} {
		if v, ok := got[name]; !ok || v != 0 {
			t.Errorf("%s: %v %v", name, v, ok)
		}
	}
}
