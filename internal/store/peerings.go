package store

import (
	"slices"

	"isthmus.dev/isthmus/internal/gate"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/state"
)

// peerings are the MeshPeers made by token, by name.
type peerings map[string]*snapshot.Object

func peeringsOf(peers []state.Peer) peerings {
	made := peerings{}
	for _, p := range peers {
		if p.Object != nil {
			made[p.Name] = snapshot.NewObject(p.Object,
				snapshot.Origin{Source: snapshot.SourceToken, FirstSeen: p.Made})
		}
	}
	return made
}

// joined is the configuration of the files together with peerings.
type joined struct {
	files   *snapshot.Config
	config  *snapshot.Config
	byToken []snapshot.Key // the objects in config that were made by token
}

// join adds the peers made by token, if the gate admits them beside the files. Unchanged parts keep the pointers of
// last. The caller holds mu.
func (s *Store) join(last joined, files *snapshot.Config, peers []state.Peer) joined {
	objects, change := files.Objects, snapshot.Change{}
	if len(last.byToken) > 0 {
		objects, change = last.config.Objects, files.Objects.ChangeSince(last.files.Objects)
		for _, k := range last.byToken {
			if o := files.Objects.Get(k); o != nil {
				change.Put(o)
			} else {
				change.Remove(k)
			}
		}
	}
	next := joined{files: files, config: &snapshot.Config{Closed: files.Closed}}
	findings := slices.Concat(files.Findings, withoutAddress(s.unaddressed))
	now, byToken := &snapshot.Snapshot{Config: files, Peers: map[string]snapshot.PeerState{}}, snapshot.Change{}
	for _, p := range peers {
		made := s.made[p.Name]
		if made == nil || !p.Revoked.IsZero() {
			continue
		}
		now.Peers[p.Name] = p.State
		byToken.Put(made)
		next.byToken = append(next.byToken, made.Key)
	}
	if len(next.byToken) > 0 {
		v := gate.Review(now, byToken, gate.Who{Source: snapshot.SourceToken, AlreadyAdmitted: true})
		findings = append(findings, v.Findings...)
		next.byToken = slices.DeleteFunc(next.byToken, v.Refuses)
	}
	for _, k := range next.byToken {
		change.Put(s.made[k.Name])
	}
	next.config.Objects, next.config.Findings = objects.With(change), findings
	if last.files == files && last.config.Objects == next.config.Objects &&
		slices.Equal(last.config.Findings, findings) {
		next.config = last.config
	}
	return next
}
