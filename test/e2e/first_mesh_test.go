//go:build e2e

package e2e

import "testing"

// TestFirstMesh: the page works as it is written, on a host that has nothing but the two programs.
func TestFirstMesh(t *testing.T) {
	t.Parallel()
	runPage(t, "isthmus-t-first", "../../docs/first-mesh.md", map[string]string{"lab": "192.0.2.1/24"})
}
