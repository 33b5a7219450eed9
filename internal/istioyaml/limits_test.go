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
		"principal": {
			`{"from": [{"source": {"principals": ["%s"]}}]}`, 2048,
			func(n int) string { return "a.example/ns/b/sa/" + strings.Repeat("c", n-18) },
		},
		"namespace":    {`{"from": [{"source": {"namespaces": ["%s"]}}]}`, 126, letters},
		"trust domain": {`{"from": [{"source": {"trustDomains": ["%s"]}}]}`, 255, letters},
		"host":         {`{"to": [{"operation": {"hosts": ["%s"]}}]}`, 259, letters},
		"method":       {`{"to": [{"operation": {"methods": ["%s"]}}]}`, 64, letters},
		"path":         {`{"to": [{"operation": {"paths": ["%s"]}}]}`, 8192, letters},
		"template": {
			`{"to": [{"operation": {"paths": ["%s"]}}]}`, 258,
			func(n int) string { return "/{*}/" + strings.Repeat("c", n-5) },
		},
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

// TestCounts: an object that would cost every proxy more than one object should is refused.
func TestCounts(t *testing.T) {
	const entry = `{"apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry", "metadata": {"name": "a"}, "spec": {"resolution": "STATIC", "hosts": [%s], "ports": [%s], "addresses": [%s], "endpoints": [%s], "exportTo": [%s]}}`
	several := func(n int, format string) string {
		var out []string
		for i := range n {
			out = append(out, strings.ReplaceAll(format, "#", fmt.Sprint(i)))
		}
		return strings.Join(out, ",")
	}
	host, port := `"h#.example"`, `{"number": 2#, "name": "p#", "protocol": "TCP"}`
	for name, c := range map[string]struct {
		hosts, ports, addresses, endpoints, namespaces int
		ok                                             bool
	}{
		"few":            {1, 1, 1, 1, 1, true},
		"hosts":          {128, 1, 0, 1, 1, true},
		"more hosts":     {129, 1, 0, 1, 1, false},
		"ports":          {1, 128, 0, 1, 1, true},
		"more ports":     {1, 129, 0, 1, 1, false},
		"destinations":   {64, 8, 0, 1, 1, true},
		"more of them":   {65, 8, 0, 1, 1, false},
		"addresses":      {1, 1, 256, 1, 1, true},
		"more addresses": {1, 1, 257, 1, 1, false},
		"endpoints":      {1, 1, 1, 2048, 1, true},
		"more endpoints": {1, 1, 1, 2049, 1, false},
		"namespaces":     {1, 1, 1, 1, 256, true},
		"more of these":  {1, 1, 1, 1, 257, false},
	} {
		var addresses []string
		for i := range c.addresses {
			addresses = append(addresses, fmt.Sprintf(`"192.0.%d.%d"`, 2+i/256, i%256))
		}
		text := fmt.Sprintf(entry, several(c.hosts, host), several(c.ports, port), strings.Join(addresses, ","),
			several(c.endpoints, `{"address": "192.0.2.1"}`), several(c.namespaces, `"n#"`))
		f := istioyaml.Decode("in.yaml", []byte(text), schema.New().Validate, nil)
		if (len(f.Objects) == 1) != c.ok {
			t.Errorf("%s: accepted %v: %.300s", name, len(f.Objects) == 1, fmt.Sprint(f.Findings))
		}
	}
	service := fmt.Sprintf(`{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"ports": [%s]}}`, several(129, `{"port": 2#, "name": "p#"}`))
	if f := istioyaml.Decode("in.yaml", []byte(service), schema.New().Validate, nil); len(f.Objects) > 0 {
		t.Error("a Service of 129 ports is accepted")
	}
	long := `{"apiVersion": "isthmus.dev/v1alpha1", "kind": "Mesh", "metadata": {"name": "a"}, "spec": {"trustDomain": "a.example", "domain": "%s"}}`
	for n, ok := range map[int]bool{100: true, 101: false} {
		if f := istioyaml.Decode("in.yaml",
			fmt.Appendf(nil, long,
				strings.Repeat("a.", n/2-1)+strings.Repeat("b", 2+n%2)), schema.New().Validate,
			nil); (len(f.Objects) == 1) != ok {
			t.Errorf("a domain of %d characters: accepted %v", n, !ok)
		}
	}
}
