package cli

import (
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/adminapi"
)

func TestContainmentText(t *testing.T) {
	none := []adminapi.Quarantined{}
	for want, c := range map[string]*adminapi.Containment{
		"": nil,
		"\n‼ n1 runs on its last good configuration while the cause is looked for: it crashed\n": {
			Held: true, Searching: true, Reason: "it crashed", Quarantined: none,
		},
		"\n‼ n1 runs on its last good configuration, without any change since: it crashed\n  Next: isthmus status --findings\n": {
			Held: true, Reason: "it crashed", Quarantined: none,
		},
		"\n‼ n1 cannot run with its configuration, the cause is being looked for: bad?[2Jwords\n": {
			Searching: true, Reason: "bad\x1b[2Jwords", Quarantined: none,
		},
		"\n‼ n1 lives without AuthorizationPolicy default/p, in quarantine since 2m ago: it crashed\n  Next: change or remove it\n": {
			Quarantined: []adminapi.Quarantined{
				{Object: "AuthorizationPolicy default/p", Since: now.Add(-2 * time.Minute), Reason: "it crashed"},
			},
		},
	} {
		same(t, containmentText(adminapi.ProxyStatus{Name: "n1", Contained: c}, relative), want)
	}
}
