package istioyaml

import "isthmus.dev/isthmus/api/v1alpha1"

func checkMesh(r *report, o *v1alpha1.Mesh, _ map[string]any) {}
