//go:build e2e

package hostile

import (
	"bytes"
	"errors"
	"strings"
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

// TestTheJudgeIsAwake plants in sound resources what reading refuses: Envoy must say no to each, or the tests above say
// nothing.
func TestTheJudgeIsAwake(t *testing.T) {
	binary, err := envoyproc.Locate("../../.cache")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ sound, planted, says string }{
		"nothing":                          {"", "", ""},
		"a path in a class that is none":   {"/a/[A-Z", "/a/[Z-A", "invalid character class range"},
		"a path in a group without an end": {"/a/[A-Z", "/a/(A-Z", "missing )"},
		"a header with a newline":          {"x-role", "x\nrole", "regex"},
		"no address":                       {"198.51.100.12", "198.51.100.1x", "malformed IP address"},
	} {
		t.Run(name, func(t *testing.T) {
			rs := resources(t, []object{objectOf("AuthorizationPolicy", parsed["AuthorizationPolicy"][0], "nothing")},
				1)
			planted := 0
			for i, r := range rs {
				if c.sound != "" && bytes.Contains(r.Body, []byte(c.sound)) {
					bad := *r
					bad.Body = bytes.ReplaceAll(r.Body, []byte(c.sound), []byte(c.planted)) // of equal length
					rs[i], planted = &bad, planted+1
				}
			}
			err := newJudge(t, binary).try(rs)
			if c.sound == "" && err != nil {
				t.Fatal(err)
			}
			var no envoyproc.Refusal
			if c.sound != "" && (planted == 0 || !errors.As(err, &no) || !strings.Contains(no.Error(), c.says)) {
				t.Errorf("planted in %d resources: %v", planted, err)
			}
		})
	}
}
