package istioyaml_test

import (
	"fmt"
	"strings"
	"testing"

	"isthmus.dev/isthmus/internal/istioyaml"
	"isthmus.dev/isthmus/internal/schema"
)

// TestLengths: what is as long as what it is compared with can be is read; one more is refused.
func TestLengths(t *testing.T) {
	const policy = `{"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": {"name": "a"}, "spec": {"action": "DENY", "rules": [%s]}}`
	for name, c := range map[string]struct {
		rule    string // with %s for the value
		longest int    // of the value
		value   func(n int) string
	}{
		"principal":     {`{"from": [{"source": {"principals": ["%s"]}}]}`, 2048, func(n int) string { return "a.example/ns/b/sa/" + strings.Repeat("c", n-18) }},
		"namespace":     {`{"from": [{"source": {"namespaces": ["%s"]}}]}`, 126, letters},
		"trust domain":  {`{"from": [{"source": {"trustDomains": ["%s"]}}]}`, 255, letters},
		"host":          {`{"to": [{"operation": {"hosts": ["%s"]}}]}`, 259, letters},
		"method":        {`{"to": [{"operation": {"methods": ["%s"]}}]}`, 64, letters},
		"path":          {`{"to": [{"operation": {"paths": ["%s"]}}]}`, 8192, letters},
		"template":      {`{"to": [{"operation": {"paths": ["%s"]}}]}`, 258, func(n int) string { return "/{*}/" + strings.Repeat("c", n-5) }},
		"header":        {`{"when": [{"key": "request.headers[%s]", "values": ["a"]}]}`, 256, letters},
		"header value":  {`{"when": [{"key": "request.headers[a]", "values": ["%s"]}]}`, 8192, letters},
		"not the value": {`{"when": [{"key": "request.headers[a]", "notValues": ["%s"]}]}`, 8192, letters},
		"SNI":           {`{"when": [{"key": "connection.sni", "values": ["%s"]}]}`, 259, letters},
	} {
		for n, want := range map[int]bool{c.longest: true, c.longest + 1: false, 66_000: false} {
			text := fmt.Sprintf(policy, fmt.Sprintf(c.rule, c.value(n)))
			f := istioyaml.Decode("in.yaml", []byte(text), schema.New().Validate, nil)
			if (len(f.Objects) == 1) != want {
				t.Errorf("%s of %d bytes: accepted %v: %.300s", name, n, len(f.Objects) == 1, fmt.Sprint(f.Findings))
			}
		}
	}
}

func letters(n int) string { return strings.Repeat("c", n) }
