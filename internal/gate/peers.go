package gate

import (
	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/peerrules"
	"isthmus.dev/isthmus/internal/snapshot"
)

// keepPeerings resolves a conflict between a MeshPeer in a file and a peering by token of the same name, whichever
// comes second. The file wins, unless it means another mesh and is not known to be older. So writing a file cannot
// displace an older peering by using its name.
func keepPeerings(now *snapshot.Snapshot, change snapshot.Change, _ Who, v *Verdict) {
	for k, is := range change.Edits() {
		if is == nil {
			continue
		}
		if _, ok := is.Value.(*v1alpha1.MeshPeer); !ok {
			continue
		}
		was := now.Config.Objects.Get(k)
		if was == nil || was.Origin.Source == is.Origin.Source {
			continue
		}
		file, made := is, was
		if is.Origin.Source == snapshot.SourceToken {
			file, made = was, is
		}
		o, peer := file.Origin, file.Value.(*v1alpha1.MeshPeer)
		older := !o.FirstSeen.IsZero() && o.FirstSeen.Before(made.Origin.FirstSeen)
		stays := file
		f := finding.New("ISM0003", k, "metadata.name",
			"a peering of this name was also made by token; the file is used",
			"remove the file, or isthmus peer revoke "+k.Name)
		if !older && !peerrules.SameMesh(peer, made.Value.(*v1alpha1.MeshPeer), now.Peers[k.Name]) {
			stays = made
			f = finding.New("ISM0270", k, "metadata.name",
				"a peering of this name was made by token before, with another trust domain or other "+
					"roots; it stands, and the file is ignored",
				"choose another name, or isthmus peer revoke "+k.Name+" first")
		}
		if stays != is {
			v.refuse(k)
		}
		v.add(f.At(o.File, o.Line))
	}
}
