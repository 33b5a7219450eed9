package istioyaml

import (
	"reflect"
	"strings"
	"testing"
	"time"

	networking "istio.io/client-go/pkg/apis/networking/v1"

	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/kind"
)

var destinationRules = kind.Kind{
	Name: "DestinationRule", APIVersions: []string{"networking.istio.io/v1"}, Family: kind.Istio,
	Type: reflect.TypeFor[networking.DestinationRule](),
}

// readRule reads a DestinationRule with a connectTimeout and a number of errors that put a server out of use, both as
// JSON has them.
func readRule(timeout, most any) (*networking.DestinationRule, []finding.Finding) {
	var r report
	rule := reflect.New(destinationRules.Type)
	r.istio(destinationRules, rule.Elem(), map[string]any{
		"metadata": map[string]any{"name": "web"},
		"spec": map[string]any{
			"host": "web", "trafficPolicy": map[string]any{
				"connectionPool":   map[string]any{"tcp": map[string]any{"connectTimeout": timeout}},
				"outlierDetection": map[string]any{"interval": "1m", "consecutive5xxErrors": most},
			},
		},
	})
	return rule.Interface().(*networking.DestinationRule), r.Findings
}

// Istio's files write durations as Go does, and protojson knows seconds alone.
func TestDurations(t *testing.T) {
	for written, want := range map[string]time.Duration{
		"500ms": 500 * time.Millisecond, "1m30s": 90 * time.Second, "1.5h": 90 * time.Minute, "3s": 3 * time.Second,
		"0.000000001s": 1, "-1m0.25s": -60250 * time.Millisecond, "0s": 0, "2562047h47m16.854775807s": 1<<63 - 1,
		"-2562047h47m16.854775808s": -1 << 63,
	} {
		rule, found := readRule(written, int64(5))
		got := rule.Spec.GetTrafficPolicy().GetConnectionPool().GetTcp().GetConnectTimeout()
		if len(found) > 0 || got == nil || got.AsDuration() != want {
			t.Errorf("%s means %v, want %v; %v", written, got.AsDuration(), want, found)
		}
		if o := rule.Spec.GetTrafficPolicy().GetOutlierDetection(); o.GetConsecutive_5XxErrors().GetValue() != 5 ||
			o.GetInterval().AsDuration() != time.Minute {
			t.Errorf("%s: the rest of the document means %v", written, o)
		}
	}
	const timeout, most = "spec.trafficPolicy.connectionPool.tcp.connectTimeout",
		"spec.trafficPolicy.outlierDetection.consecutive5xxErrors"
	for _, tt := range []struct {
		timeout, most        any
		field, message, hint string
	}{
		{"soon", int64(5), timeout, `"soon" is not a duration`, `such as "500ms"`},
		{"5", int64(5), timeout, `"5" is not a duration`, `such as "500ms"`},
		{"3000000h", int64(5), timeout, `"3000000h" is not a duration`, `such as "500ms"`},
		{int64(5), int64(5), timeout, "must be a duration, is a whole number", `such as "500ms"`},
		{"1s", "5", most, "must be a whole number, is text", "write a whole number"},
		{"1s", int64(-1), most, "-1 is out of range", "write a number from 0"},
	} {
		_, found := readRule(tt.timeout, tt.most)
		if len(found) != 1 || found[0].Field != tt.field || found[0].Message != tt.message ||
			!strings.Contains(found[0].Remedy, tt.hint) {
			t.Errorf("%v, %v: %v", tt.timeout, tt.most, found)
		}
	}
}

// Whatever Go reads as a duration means the same here, and nothing else is one.
func FuzzDuration(f *testing.F) {
	for _, s := range []string{"500ms", "1m30s", "-1.5h", "9223372036.854775807s", "0", "1d", "١s", "1e3s"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, written string) {
		rule, found := readRule(written, int64(5))
		want, err := time.ParseDuration(written)
		got := rule.Spec.GetTrafficPolicy().GetConnectionPool().GetTcp().GetConnectTimeout().AsDuration()
		if (err == nil) != (len(found) == 0) || err == nil && got != want {
			t.Errorf("%q means %v (%v), want %v (%v)", written, got, found, want, err)
		}
	})
}
