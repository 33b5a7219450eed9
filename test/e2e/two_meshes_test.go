//go:build e2e

package e2e

import "testing"

// TestTwoMeshesByHand: the page works as it is written, on two hosts that have nothing but the two programs.
func TestTwoMeshesByHand(t *testing.T) {
	runPage(t, "isthmus-t-hand", "../../docs/two-meshes.md", map[string]string{"lab": "192.0.2.1/24", "bank": "192.0.2.2/24"})
}
