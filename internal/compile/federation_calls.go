package compile

import (
	"cmp"
	"slices"

	"isthmus.dev/isthmus/internal/model"
)

// PeerCall is a caller at a peer, or a set of callers, and what it may call here.
type PeerCall struct {
	Peer string
	// Caller is a SPIFFE ID. A "*" at the end makes it a prefix. Empty means anybody whom the peer lets through, on raw
	// TCP.
	Caller string
	Export *model.Export
	By     []model.Ref // the export and the workload's policies; sorted
}

// PeerCalls returns the callers at peers that may pass both an export and the policies of a workload behind it. As for
// callers of the mesh, methods and paths may restrict the calls further.
func PeerCalls(mesh *model.Mesh) []PeerCall {
	x := newCrossing(&inquiry{mesh: mesh})
	var out []PeerCall
	for _, e := range Passes(mesh) {
		by := map[string][]model.Ref{}
		for _, ps := range x.behind(e) {
			for _, caller := range offeredTo(e) {
				for v, refs := range x.letIn(e, ps, caller) {
					by[v] = append(by[v], refs...)
				}
			}
		}
		for _, v := range sortedKeys(by) {
			refs := append(by[v], e.Ref)
			slices.Sort(refs)
			out = append(out, PeerCall{Peer: e.Peer.Name, Caller: v, Export: e, By: slices.Compact(refs)})
		}
	}
	slices.SortStableFunc(out, func(a, b PeerCall) int {
		return cmp.Or(cmp.Compare(a.Peer, b.Peer),
			cmp.Compare(a.Caller, b.Caller))
	})
	return out
}

// behind returns the policies of each workload that serves an export, or none if one of them is not registered.
func (x *crossing) behind(e *model.Export) []model.Policies {
	var out []model.Policies
	for _, ep := range x.mesh.Endpoints[e.Set()] {
		w := x.mesh.Workloads[ep.By]
		if w == nil {
			return []model.Policies{{DefaultAllow: true}}
		}
		for _, in := range w.Inbound {
			if in.Port == ep.Port {
				out = append(out, in.Policies)
			}
		}
	}
	return out
}

// offeredTo returns the callers that an export's rules admit. On raw TCP callers cannot be distinguished.
func offeredTo(e *model.Export) []model.Match {
	if !e.Port.Protocol.IsHTTP() {
		return []model.Match{{}}
	}
	var out []model.Match
	for _, r := range e.Rules {
		if len(r.Callers) == 0 {
			out = append(out, model.Match{Kind: model.Prefix, Value: "spiffe://" + e.Peer.TrustDomain.Name() + "/"})
		}
		out = append(out, r.Callers...)
	}
	return out
}

// letIn returns the part of caller that the policies admit, with the policies that do.
func (x *crossing) letIn(e *model.Export, ps model.Policies, caller model.Match) map[string][]model.Ref {
	out := map[string][]model.Ref{}
	for _, v := range x.verdicts(e, ps, caller) {
		if len(ps.Allow) == 0 { // by default
			out[spelled(caller)] = nil
		}
		for _, by := range v.By {
			if by.Policy.Action != model.Allow {
				continue
			}
			for _, m := range by.Asserting(v.request, caller) {
				out[spelled(m)] = append(out[spelled(m)], by.Policy.Ref)
			}
		}
	}
	return out
}

func spelled(m model.Match) string {
	if m.Kind == model.Prefix {
		return m.Value + "*"
	}
	return m.Value
}
