package istioyaml

import "isthmus.dev/isthmus/api/v1alpha1"

func checkMeshPeer(r *report, o *v1alpha1.MeshPeer, _ map[string]any) {}
