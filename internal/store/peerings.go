package store

import (
	"slices"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/peerrules"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/state"
)

// peerings are the peers that were made by token, as objects, by name.
type peerings map[string]*snapshot.Object

func peeringsOf(peers []state.Peer) peerings {
	made := peerings{}
	for _, p := range peers {
		if p.Object != nil {
			made[p.Name] = snapshot.NewObject(p.Object, snapshot.Origin{Source: snapshot.SourceToken, FirstSeen: p.Made})
		}
	}
	return made
}

// joined is the configuration of the files with peerings in it.
type joined struct {
	files   *snapshot.Config
	config  *snapshot.Config
	byToken []snapshot.Key // the objects of config that were made by token
}

// join adds the peers that were made by token. A file of the same name wins, and is told so; but one that means another
// mesh does not put an older peering out. What is as it was in last keeps its pointers. It must be called with mu held.
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
	for _, p := range peers {
		made := s.made[p.Name]
		if made == nil || !p.Revoked.IsZero() {
			continue
		}
		if o := files.Objects.Get(made.Key); o != nil {
			f, ignored := clash(o, p)
			findings = append(findings, f)
			if !ignored {
				continue
			}
		}
		change.Put(made)
		next.byToken = append(next.byToken, made.Key)
	}
	next.config.Objects, next.config.Findings = objects.With(change), findings
	if last.files == files && last.config.Objects == next.config.Objects && slices.Equal(last.config.Findings, findings) {
		next.config = last.config
	}
	return next
}

// clash is what to say of a file that has the name of a peering by token, and whether the file is ignored.
func clash(file *snapshot.Object, p state.Peer) (f finding.Finding, ignored bool) {
	o := file.Origin
	f = finding.Finding{Object: file.Key.String(), File: o.File, Line: o.Line, Field: "metadata.name"}
	older := !o.FirstSeen.IsZero() && o.FirstSeen.Before(p.Made)
	if older || peerrules.SameMesh(file.Value.(*v1alpha1.MeshPeer), p.Object, p.State) {
		f.Code, f.Severity = "ISM0003", finding.Warning
		f.Message = "a peering of this name was also made by token; the file is used"
		f.Remedy = "remove the file, or isthmus peer revoke " + p.Name
		return f, false
	}
	f.Code, f.Severity = "ISM0270", finding.Error
	f.Message = "a peering of this name was made by token before, with another trust domain or other " +
		"roots; it stands, and the file is ignored"
	f.Remedy = "choose another name, or isthmus peer revoke " + p.Name + " first"
	return f, true
}
