package limits

import (
	"maps"
	"testing"
)

func TestShares(t *testing.T) {
	for name, c := range map[string]struct{ got, want map[string]uint32 }{
		"one workload": {
			OfWorkloads(1000, []string{"a/b"}), map[string]uint32{"outbound/a/b": 500, "inbound/a/b": 500},
		},
		"two": {OfWorkloads(1000, []string{"a/b", "a/c"}), map[string]uint32{
			"outbound/a/b": 250, "inbound/a/b": 250, "outbound/a/c": 250, "inbound/a/c": 250,
		}},
		"many": {
			OfWorkloads(1000, make([]string, 100)),
			map[string]uint32{"outbound/": 125, "inbound/": 125},
		},
		"none":               {OfWorkloads(1000, nil), nil},
		"gateway":            {OfGateway(1000), map[string]uint32{"ingress": 750}},
		"hardly any for all": {OfGateway(1), map[string]uint32{"ingress": 1}},
	} {
		if !maps.Equal(c.got, c.want) {
			t.Errorf("%s: %v, want %v", name, c.got, c.want)
		}
	}
}
