package admin

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/kind"
	"isthmus.dev/isthmus/internal/meshd/spine"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
)

// An import is ready as long as one of its sources is, be it the local endpoints; where none is, each says why.
func TestNobodyReady(t *testing.T) {
	remote := func(peer string) model.Remote {
		return model.Remote{Peer: &model.Peer{Name: peer}, Namespace: "default", Alias: "pay"}
	}
	here := model.EndpointSet{Host: "pay.default.svc.cluster.local", Port: 80}
	for name, tt := range map[string]struct {
		unready string // names of peers
		local   string // "none", or whether an endpoint is "ready" or "unready"
		want    string
	}{
		"both are":               {"", "none", ""},
		"one is":                 {"bank", "none", ""},
		"none is":                {"bank lab", "none", "bank cannot; lab cannot"},
		"the local ones are":     {"bank lab", "ready", ""},
		"the local ones are not": {"bank lab", "unready", "bank cannot; lab cannot"},
	} {
		i := &model.Import{Host: here.Host, Port: here.Port, Remotes: []model.Remote{remote("bank"), remote("lab")}}
		mesh := &model.Mesh{Endpoints: map[model.EndpointSet][]model.Endpoint{here: {{
			Port:    8080,
			Healthy: tt.local == "ready",
		}}}}
		if tt.local != "none" {
			i.Local = &model.LocalPart{Weight: 1}
		}
		got := nobodyReady(mesh, i, func(r model.Remote) string {
			if slices.Contains(strings.Fields(tt.unready), r.Peer.Name) {
				return r.Peer.Name + " cannot"
			}
			return ""
		})
		if got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

// The state of one line is the worst of what is found about that line, and information is not bad news.
func TestWrongWithOneLine(t *testing.T) {
	about := func(severity finding.Severity, field, message string) finding.Finding {
		return finding.Finding{
			Code: "ISM0001", Severity: severity,
			Object: kind.Key{Kind: "FederatedExport", Namespace: "money", Name: "pay"}, Field: field, Message: message,
		}
	}
	key := snapshot.Key{Kind: "FederatedExport", Namespace: "money", Name: "pay"}
	for name, tt := range map[string]struct {
		findings []finding.Finding
		want     [2]string // of spec.to[0], of spec.to[1]
	}{
		"nothing": {nil, [2]string{}},
		"of one line": {
			[]finding.Finding{about(finding.Warning, "spec.to[1].rules[0]", "wide")},
			[2]string{"", "wide"},
		},
		"of the object": {
			[]finding.Finding{about(finding.Warning, "spec.port", "closed")},
			[2]string{"closed", "closed"},
		},
		"the worst": {
			[]finding.Finding{
				about(finding.Warning, "spec.to[0]", "wide"),
				about(finding.Error, "spec.to[0].peer", "nobody"),
			}, [2]string{"nobody", ""},
		},
		"information": {[]finding.Finding{about(finding.Info, "spec.to[0]", "well")}, [2]string{}},
		"of another object": {[]finding.Finding{{
			Severity: finding.Error,
			Object:   kind.Key{Kind: "FederatedExport", Namespace: "money", Name: "payx"}, Message: "no",
		}}, [2]string{}},
	} {
		p := &spine.Published{Snapshot: new(snapshot.Snapshot), Findings: tt.findings}
		for n, want := range tt.want {
			if got := worstFinding(p, key, "spec.to[", n); got != want {
				t.Errorf("%s: of line %d %q, want %q", name, n, got, want)
			}
		}
	}
}

// What an import that waits for its peer says, and what of an offer is imported.
func TestImportsOfOffers(t *testing.T) {
	snap := withBank(t)
	money := snapshot.Of[*v1alpha1.FederatedImport](snap.Config)[1]
	from := func(namespace, name string) string {
		return strings.Join(importedAs(inForce(snap), "bank",
			snapshot.OfferedService{Namespace: namespace, Name: name}), " ")
	}
	for offer, want := range map[[2]string]string{
		{"default", "money"}: "money.default.svc.cluster.local:80", {"default", "coins"}: "", {"books", "money"}: "",
	} {
		if got := from(offer[0], offer[1]); got != want {
			t.Errorf("%v is imported as %q, not as %q", offer, got, want)
		}
	}
	money.Spec.From[0].Name, money.Spec.From[0].Namespace = "coins", "books"
	if got := from("books", "coins") + from("default", "money"); got != "money.default.svc.cluster.local:80" {
		t.Errorf("under names of their own they are imported as %q", got)
	}
	money.Spec.From[0].Name, money.Spec.From[0].Namespace = "", ""
	if got := importedAs(inForce(snap), "lab",
		snapshot.OfferedService{Namespace: "default", Name: "money"}); len(got) != 0 {
		t.Errorf("another peer's is imported as %v", got)
	}
	for want, bank := range map[string]snapshot.PeerState{
		"Ready": snap.Peers["bank"], "peer bank has not said yet what it offers": {BundleTime: snap.Time},
		"nobody can serve it now: nothing passes between this mesh and peer bank": {
			BundleTime: snap.Time,
			Suspended:  true,
		},
	} {
		snap.Peers["bank"] = bank
		if got := importStatus(inForce(snap), money, func(model.Remote) string { return "" }).State; got != want {
			t.Errorf("%s, not %s", got, want)
		}
	}
}

// Before anybody has joined, an export says no more than that nothing behind it is ready.
func TestExportBeforeAnybodyJoins(t *testing.T) {
	snap := withBank(t)
	snap.Registry.Workloads = nil
	if got := exportStatus(inForce(snap), snapshot.Of[*v1alpha1.FederatedExport](snap.Config)[0],
		0); got.State != "no endpoint is ready" || got.Endpoints != 0 {
		t.Errorf("%+v", got)
	}
}

// In a mesh without any peer an import says that nobody serves it.
func TestImportWithoutPeers(t *testing.T) {
	snap := withBank(t)
	money := snapshot.Of[*v1alpha1.FederatedImport](snap.Config)[1]
	snap.Config = &snapshot.Config{Objects: snapshot.ObjectsOf(snap.Config.Mesh(), money)}
	if got := importStatus(inForce(snap), money,
		func(model.Remote) string { return "" }).State; got != `there is no peer "bank" yet; it serves nothing` {
		t.Error(got)
	}
}

// silentAgents report nothing.
type silentAgents struct{ Agents }

func (silentAgents) Reports() map[string]agentapi.Report { return nil }

// Who asks for one peer hears of that one, and of one that is not there that it is not.
func TestAskedForOnePeer(t *testing.T) {
	snap := withBank(t)
	offered := []snapshot.OfferedService{{Namespace: "a", Name: "b"}}
	snap.Peers["lab"] = snapshot.PeerState{Catalogue: &snapshot.Catalogue{Services: offered}}
	p := inForce(snap)
	a := New(Config{Published: func() *spine.Published { return p }, Agents: silentAgents{}})
	for peer, want := range map[string]int{"": 3, "bank": 2, "lab": 1, "nobody": 0} {
		resp, err := a.Catalogue(t.Context(), &adminapi.PeerRequest{Peer: peer})
		if err != nil || len(resp.Entries) != want {
			t.Errorf("%q offers %v, %v", peer, resp, err)
		}
	}
	if _, err := a.PeerList(t.Context(), &adminapi.PeerRequest{Peer: "nobody"}); status.Code(err) != codes.NotFound {
		t.Errorf("a peer that is not there: %v", err)
	}
}

// Why a peer cannot serve: it lets nothing through, or says that it has no endpoint.
func TestUnready(t *testing.T) {
	snap := withBank(t)
	snap.Peers["bank"] = snapshot.PeerState{Readiness: &snapshot.Readiness{
		Sequence: 1,
		Unready:  []snapshot.OfferedName{{Namespace: "default", Name: "money"}},
	}}
	said := unready(inForce(snap), func(peer string) bool { return peer == "lab" })
	for offer, want := range map[[2]string]string{
		{"bank", "money"}: "no endpoint is ready at peer bank", {"bank", "ledger"}: "",
		{"lab", "money"}: "peer lab lets nothing of this mesh through",
	} {
		if got := said(model.Remote{
			Peer: &model.Peer{Name: offer[0]}, Namespace: "default",
			Alias: offer[1],
		}); got != want {
			t.Errorf("%v: %q, want %q", offer, got, want)
		}
	}
}
