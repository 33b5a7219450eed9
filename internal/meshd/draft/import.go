package draft

import (
	"fmt"
	"slices"
	"strings"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/snapshot"
)

// Import drafts the objects of an import of a service that the peer offers.
func Import(snap *snapshot.Snapshot, r *adminapi.ImportDraftRequest) (*adminapi.DraftResponse, error) {
	peer, err := peerNamed(snap, r.Peer)
	if err != nil {
		return nil, err
	}
	offer, err := offered(snap, peer.Name, r.Name)
	if err != nil {
		return nil, err
	}
	namespace, name := offer.Namespace, offer.Name
	if r.As != "" {
		ns, n, qualified := strings.Cut(r.As, "/")
		if !qualified {
			ns, n = namespace, r.As
		}
		namespace, name = ns, n
	}
	source := map[string]any{"peer": peer.Name}
	if offer.Name != name {
		source["name"] = offer.Name
	}
	if offer.Namespace != namespace {
		source["namespace"] = offer.Namespace
	}
	spec := map[string]any{"port": int(offer.Port), "from": []any{source}, "callers": list(r.Callers)}
	if offer.Protocol != "HTTP" {
		spec["protocol"] = offer.Protocol
	}
	d := &draft{snap: snap, written: []map[string]any{object(ownAPI, "FederatedImport", namespace, name, spec)}}
	key := keyOf(d.written[0])
	if old := snapshot.Named[*v1alpha1.FederatedImport](snap.Config.Objects, namespace, name); old != nil {
		for _, f := range old.Spec.From {
			if f.Peer != peer.Name {
				o := snap.Config.Origin(key)
				return nil,
					refusedDraft("FederatedImport %s/%s (%s:%d) takes from peer %s already: add peer %s to its spec.from "+
						"there, with a weight or a priority", namespace, name, o.File, o.Line, f.Peer, peer.Name)
			}
		}
	}
	resp, err := d.judge()
	if err != nil {
		return nil, err
	}
	resp.File = fmt.Sprintf("import-%s-%s.yaml", namespace, name)
	if len(r.Callers) == 0 {
		resp.Notes = append(resp.Notes, "Nobody may call it yet: name callers by --callers, or in spec.callers.")
	}
	return resp, nil
}

// offered finds a peer's offer by "name" or "namespace/name".
func offered(snap *snapshot.Snapshot, peer, name string) (snapshot.OfferedService, error) {
	c := snap.Peers[peer].Catalogue
	if c == nil {
		return snapshot.OfferedService{},
			notFound("peer %s has not said yet what it offers: isthmus peer status %s", peer, peer)
	}
	var found []snapshot.OfferedService
	var all, plain []string
	for _, s := range c.Services {
		full := s.Namespace + "/" + s.Name
		if name == full || name == s.Name {
			found = append(found, s)
		}
		all, plain = append(all, full), append(plain, s.Name)
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		candidates := plain
		if strings.Contains(name, "/") {
			candidates = all
		}
		return snapshot.OfferedService{}, notFound("peer %s offers no %q%s: isthmus catalogue %s lists what it offers",
			peer, name, suggestion(name, candidates), peer)
	}
	slices.Sort(all)
	var which []string
	for _, s := range found {
		which = append(which, s.Namespace+"/"+s.Name)
	}
	slices.Sort(which)
	return snapshot.OfferedService{}, refusedDraft("peer %s offers several of the name %q: write one of %s", peer, name,
		strings.Join(which, ", "))
}
