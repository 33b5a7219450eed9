package agents

import (
	"strings"
	"testing"
	"time"
)

// Who is out of use after which looks. Each step is a time after the start and who is connected then.
func TestSilentNodes(t *testing.T) {
	type step struct {
		at        time.Duration
		connected string
	}
	for name, c := range map[string]struct {
		registered string
		steps      []step
		out        string
	}{
		"all are here": {"a b", []step{{0, "a b"}, {time.Minute, "a b"}}, ""},
		"one goes": {
			"a b",
			[]step{{0, "a b"}, {time.Second, "a"}, {2 * time.Second, "a"}},
			"b",
		},
		"one is started again": {
			"a b",
			[]step{{0, "a b"}, {time.Second, "a"}, {1900 * time.Millisecond, "a"}},
			"",
		},
		"one returns": {
			"a b",
			[]step{{0, "a b"}, {time.Second, "a"}, {3 * time.Second, "a"}, {4 * time.Second, "a b"}},
			"",
		},
		"the only one goes": {"a", []step{{0, "a"}, {time.Second, ""}, {time.Hour, ""}}, ""},
		"all go":            {"a b c", []step{{0, "a b c"}, {time.Second, ""}, {time.Hour, ""}}, ""},
		"most go":           {"a b c", []step{{0, "a b c"}, {time.Second, "a"}, {time.Hour, "a"}}, ""},
		"most go and all but one return": {
			"a b c",
			[]step{
				{0, "a b c"},
				{time.Second, ""},
				{8 * time.Second, ""},
				{9 * time.Second, "a b"},
				{12 * time.Second, "a b"},
			},
			"",
		},
		"most go and one never returns": {
			"a b c",
			[]step{
				{0, "a b c"},
				{time.Second, ""},
				{8 * time.Second, ""},
				{9 * time.Second, "a b"},
				{20 * time.Second, "a b"},
			},
			"c",
		},
		"one after the other goes": {
			"a b c",
			[]step{
				{0, "a b c"},
				{time.Second, "a b"},
				{3 * time.Second, "a b"},
				{4 * time.Second, "a"},
				{6 * time.Second, "a"},
			},
			"b c",
		},
		"one goes, then the others": {
			"a b c",
			[]step{
				{0, "a b c"},
				{time.Second, "a b"},
				{3 * time.Second, "a b"},
				{4 * time.Second, ""},
				{6 * time.Second, ""},
			},
			"c",
		},
		"a control plane that has started": {
			"a b c",
			[]step{{0, ""}, {2 * time.Second, "a"}, {20 * time.Second, "a b"}, {29 * time.Second, "a b"}},
			"",
		},
		"one that never comes": {
			"a b c",
			[]step{{0, ""}, {2 * time.Second, "a b"}, {31 * time.Second, "a b"}},
			"c",
		},
		"one that is forgotten": {"a", []step{{0, "a b"}, {time.Second, "a"}, {3 * time.Second, "a"}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			began := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
			h := &heartbeats{started: began}
			var got []string
			for _, s := range c.steps {
				connected := map[string]bool{}
				for _, n := range strings.Fields(s.connected) {
					connected[n] = true
				}
				got = nil
				for _, n := range h.look(strings.Fields(c.registered), connected, began.Add(s.at)) {
					got = append(got, n.Name)
				}
			}
			if strings.Join(got, " ") != c.out {
				t.Errorf("out of use are %q, want %q", got, c.out)
			}
		})
	}
}
