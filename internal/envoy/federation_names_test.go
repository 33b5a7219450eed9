package envoy

import (
	"regexp"
	"slices"
	"testing"
)

// The scripts run for what has one of the headers that they look at, and for no less.
func TestScriptsSeeWhatTheyLookAt(t *testing.T) {
	for _, c := range []struct {
		script, header string
		names          []string
	}{
		{innerAnswers, `\["([a-z-]+)"\] = \w+,`, answersNaming},
		{innerOrigin, `"([a-z-]+)"`, requestsNaming},
	} {
		var got []string
		for _, m := range regexp.MustCompile(c.header).FindAllStringSubmatch(c.script, -1) {
			got = append(got, m[1])
		}
		if !slices.Equal(got, c.names) {
			t.Errorf("a script looks at %q, and is shown what has one of %q", got, c.names)
		}
	}
}
