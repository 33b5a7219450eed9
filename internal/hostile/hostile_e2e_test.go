//go:build e2e

package hostile

import (
	"testing"

	"isthmus.dev/isthmus/internal/kind"
	"isthmus.dev/isthmus/internal/node/envoyproc"
)

// TestEnvoyTakesWhatIsAccepted lets a real Envoy judge what comes of the hostile objects that reading accepts.
func TestEnvoyTakesWhatIsAccepted(t *testing.T) {
	binary, err := envoyproc.Locate("../../.cache")
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range kind.All {
		t.Run(k.Name, func(t *testing.T) {
			newJudge(t, binary).judge(distinct(t, k.Name, density(k.Name)))
		})
	}
}
