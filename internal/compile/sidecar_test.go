package compile

import (
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	networking "istio.io/client-go/pkg/apis/networking/v1"

	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
)

// TestSidecarsOnlyNarrow: what a workload may call is what it may call without any Sidecar, less what its namespace's,
// by a judge of the test's own, does not show. Nothing else of the mesh is another one.
func TestSidecarsOnlyNarrow(t *testing.T) {
	hidden, shown := 0, 0
	for seed := range uint64(90) {
		w := newWorld(t, seed)
		for range 20 {
			w.change()
		}
		for _, ns := range worldNamespaces {
			if w.rand.IntN(3) > 0 {
				w.sidecar(ns, w.pick(worldAccounts))
			}
		}
		snap := w.snapshot()
		narrow, _ := Mesh(snap)
		w.sc = nil
		wide, _ := Mesh(w.snapshot())
		for id, was := range wide.Workloads {
			var want []model.Outbound
			for _, o := range was.Outbound {
				if sidecarShows(snap, id.Namespace, o.Service) {
					shown++
					want = append(want, o)
				} else {
					hidden++
				}
			}
			is := narrow.Workloads[id]
			if !slices.EqualFunc(is.Outbound, want, func(a, b model.Outbound) bool { return reflect.DeepEqual(a, b) }) {
				t.Fatalf("seed %d: %s may call\n%+v\nwant\n%+v", seed, id, is.Outbound, want)
			}
			is.Outbound, was.Outbound = nil, nil
		}
		if !reflect.DeepEqual(narrow, wide) {
			t.Fatalf("seed %d: more than what workloads may call is another one", seed)
		}
	}
	if hidden < 400 || shown < 400 {
		t.Errorf("%d hidden and %d shown: the test proves too little", hidden, shown)
	}
}

// worldSidecarHosts are hosts that a Sidecar of the world shows, as patterns of <namespace>/<host>; OWN is the caller's
// namespace. Those after "~" it takes away.
var worldSidecarHosts = map[string]string{
	"./*": `^OWN/`, "a/*": `^a/`, "b/*": `^b/`, "*/*": ``, "*/x.a.svc.cluster.local": `/x\.a\.svc\.cluster\.local$`,
	"./Y.c.svc.cluster.local.": `^OWN/y\.c\.svc\.cluster\.local$`, "*/*.example.com": `\.example\.com$`,
	"*/*.b.svc.cluster.local": `\.b\.svc\.cluster\.local$`,
	"~/*":                     ``, "~a/*": `^a/`, "~./z.b.svc.cluster.local": `^OWN/z\.b\.svc\.cluster\.local$`,
	"~/*.com":                  `\.com$`,
	"~*/x.b.svc.cluster.local": `/x\.b\.svc\.cluster\.local$`,
}

// sidecarShows asks the oldest Sidecar of a namespace, or of the root namespace.
func sidecarShows(snap *snapshot.Snapshot, caller string, svc *model.Service) bool {
	for _, ns := range []string{caller, "isthmus-system"} {
		var in *networking.Sidecar
		for _, s := range snapshot.Of[*networking.Sidecar](snap.Config) {
			if s.Namespace == ns && (in == nil || snap.Config.Older(snapshot.KeyOf(s), snapshot.KeyOf(in)) < 0) {
				in = s
			}
		}
		if in == nil {
			continue
		}
		shown := false
		for _, h := range in.Spec.Egress[0].Hosts {
			pattern := regexp.MustCompile(strings.ReplaceAll(worldSidecarHosts[h], "OWN", caller))
			if pattern.MatchString(svc.ID.Namespace + "/" + svc.Host) {
				if h[0] == '~' {
					return false
				}
				shown = true
			}
		}
		return shown
	}
	return true
}
