package schema_test

import (
	"encoding/json"
	"math"
	"testing"

	"isthmus.dev/isthmus/internal/kind"
	"isthmus.dev/isthmus/internal/schema"
)

// FuzzValidate: no document, however odd, brings the schemas down, and every finding is whole.
func FuzzValidate(f *testing.F) {
	for i := range kind.All {
		for _, text := range []string{
			`{}`, `{"spec":null}`, `{"metadata":null,"spec":[]}`, `{"spec":{"to":[null],"from":null,"bundle":7}}`,
			`{"spec":{"trustDomain":[],"certificateTTL":{}}}`,
			`{"apiVersion":1,"kind":[],"spec":{"gatewayIDs":{"a":1},"expiresAt":false}}`,
			`{"spec":{"port":1e300,"weight":-1.5}}`,
		} {
			f.Add(i, []byte(text))
		}
	}
	validate := schema.New().Validate
	f.Fuzz(func(t *testing.T, n int, text []byte) {
		var doc map[string]any
		if json.Unmarshal(text, &doc) != nil || doc == nil {
			return
		}
		plain(doc)
		for _, fd := range validate(kind.All[(n%len(kind.All)+len(kind.All))%len(kind.All)].Name, doc) {
			if fd.Code == "" || fd.Message == "" || fd.Remedy == "" {
				t.Errorf("finding is not whole: %+v", fd)
			}
		}
	})
}

// plain makes whole numbers int64, as documents have them.
func plain(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k := range v {
			v[k] = plain(v[k])
		}
	case []any:
		for i := range v {
			v[i] = plain(v[i])
		}
	case float64:
		if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
			return int64(v)
		}
	}
	return v
}
