package compile

import (
	"cmp"
	"slices"

	"isthmus.dev/isthmus/internal/model"
)

// PeerCall is a caller at a peer, or all of a kind, and what it may call here.
type PeerCall struct {
	Peer string
	// SPIFFE ID, with a "*" at its end for all that begin so; empty is whoever the peer lets through, on raw TCP
	Caller string
	Export *model.Export
	By     []model.Ref // the export, and the workload's policies; sorted
}

// PeerCalls are the callers at peers that both an export and the policies of the workload behind it may let in. As for
// callers of the mesh, methods and paths may narrow a call further.
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

// behind are the policies of each workload that serves an export; none at all where one is not known here.
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

// offeredTo are the callers that an export's rules let through. On raw TCP nobody is told apart.
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

// letIn narrows a caller, or a kind of them, to whom the policies name, with the policies that do.
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
