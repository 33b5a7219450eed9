//go:build e2e

package e2e

import (
	"slices"
	"strings"
	"testing"

	"isthmus.dev/isthmus/internal/adminapi"
)

// TestEventsOfADemo: everything that was done to two meshes until they work together, and then to part and join them,
// is on record at each, and nothing else.
func TestEventsOfADemo(t *testing.T) {
	t.Parallel()
	s := raise(t, "isthmus-t-events")
	s.command(t, "retail", "suspend", "cards")
	s.command(t, "retail", "resume", "cards")
	_, err := s.isthmus("token", "create", "--node", "spare", "--identity", "default/*", "--socket", s.socket("cards"))
	need(t, err)
	for mesh, want := range map[string][]string{
		"cards": {
			"node cards-gateway | node join | node cards-gateway | ok",
			"node cards-node | node join | node cards-node | ok",
			"peer retail | peer redeem | peer retail | ok",
			"user root (uid 0) | peer invite | peer retail | ok",
			"user root (uid 0) | token create | node cards-gateway | ok",
			"user root (uid 0) | token create | node cards-node | ok",
			"user root (uid 0) | token create | node spare | ok",
		},
		"retail": {
			"node retail-gateway | node join | node retail-gateway | ok",
			"node retail-node | node join | node retail-node | ok",
			"user root (uid 0) | peer accept | peer cards | ok",
			"user root (uid 0) | peer resume | peer cards | ok",
			"user root (uid 0) | peer suspend | peer cards | ok",
			"user root (uid 0) | token create | node retail-gateway | ok",
			"user root (uid 0) | token create | node retail-node | ok",
		},
	} {
		var got []string
		for _, e := range query[adminapi.EventsResponse](t, s, "events", "-o", "json", "--socket",
			s.socket(mesh)).Events {
			got = append(got, strings.Join([]string{e.Actor, e.Action, e.Object, e.Outcome}, " | "))
			if e.Count != 1 {
				t.Errorf("%s: refused %d times: %+v", mesh, e.Count, e)
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s:\n%s\nwant\n%s", mesh, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}
