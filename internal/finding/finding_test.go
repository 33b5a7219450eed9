package finding_test

import (
	"encoding/json"
	"testing"

	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/kind"
)

// TestJSON: the words of a finding that programs read, and that they come back as they were.
func TestJSON(t *testing.T) {
	for _, tt := range []struct {
		f    finding.Finding
		want string
	}{
		{
			finding.New("ISM0060", kind.Key{Kind: "FederatedExport", Namespace: "shop", Name: "pay"}, "spec.service",
				"none").
				At("a.yaml", 7),
			`{"code":"ISM0060","severity":"error","object":"FederatedExport shop/pay","field":"spec.service","file":"a.yaml",` +
				`"line":7,"message":"none","remedy":"write the Service, or correct the name"}`,
		},
		{
			finding.New("ISM0300", kind.Key{Kind: "node", Name: "rack1"}, "", "silent", "go and see"),
			`{"code":"ISM0300","severity":"warning","object":"node rack1","message":"silent","remedy":"go and see"}`,
		},
		{
			finding.New("ISM0203", kind.Key{}, "", "skipped"),
			`{"code":"ISM0203","severity":"info","object":"","message":"skipped","remedy":"nothing needs to be done"}`,
		},
	} {
		text, err := json.Marshal(tt.f)
		if err != nil || string(text) != tt.want {
			t.Errorf("%v is\n%s\nwant\n%s", err, text, tt.want)
		}
		var back finding.Finding
		if err := json.Unmarshal(text, &back); err != nil || back != tt.f {
			t.Errorf("%s came back as %+v: %v", text, back, err)
		}
	}
}
