package federation

import (
	"fmt"

	"sigs.k8s.io/yaml"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// Manifest returns the MeshPeer file that describes this mesh to a peer, for a peering by exchange of two files. The
// peer will call this mesh as; this mesh calls the peer knownAs.
func (s *Service) Manifest(as, knownAs string) (text, fingerprint string, err error) {
	if as == "" {
		as = s.Name
	}
	for _, name := range []string{as, knownAs} {
		if !isLabel(name) {
			return "", "", fmt.Errorf("%q cannot name a peer: use up to 63 lower-case letters, digits and '-'", name)
		}
	}
	if err := s.reachable(); err != nil {
		return "", "", err
	}
	own, err := s.describeSelf()
	if err != nil {
		return "", "", err
	}
	own.KnownAs = knownAs
	text, err = manifestText(own.meshPeer(as), knownAs, own.fingerprint())
	return text, own.fingerprint(), err
}

func manifestText(object *v1alpha1.MeshPeer, knownAs, fingerprint string) (string, error) {
	body, err := yaml.Marshal(map[string]any{
		"apiVersion": v1alpha1.APIVersion, "kind": "MeshPeer",
		"metadata": map[string]any{"name": object.Name},
		"spec":     object.Spec,
	})
	if err != nil {
		return "", fmt.Errorf("write MeshPeer: %w", err)
	}
	return fmt.Sprintf(`# Mesh %s as a peer. For the configuration folder of the mesh that is known here as %s;
# that mesh's own file ('isthmus peer manifest' there) belongs into the folder here.
# Compare with its administrators before trusting it: fingerprint %s
%s`, object.Spec.TrustDomain, knownAs, fingerprint, body), nil
}

// Offered returns the number of services that this mesh offers a peer now.
func (s *Service) Offered(peer string) int { return len(s.offered(peer)) }
