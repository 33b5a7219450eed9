package agents

import (
	"context"
	"errors"
	"reflect"
	"testing"

	"isthmus.dev/isthmus/internal/contain"
	"isthmus.dev/isthmus/internal/envoy"
)

func TestTrialParts(t *testing.T) {
	t.Parallel()
	large := func(n int) *envoy.Resource { return &envoy.Resource{Type: "t", Name: "n", Body: make([]byte, n)} }
	for name, c := range map[string]struct {
		resources []*envoy.Resource
		want      []int // resources in each part; nil for a refusal
	}{
		"nothing":    {nil, []int{0}},
		"small ones": {[]*envoy.Resource{large(1), large(2)}, []int{2}},
		"several": {
			[]*envoy.Resource{large(700 << 10), large(300 << 10), large(600 << 10), large(10)},
			[]int{2, 2},
		},
		"a large one": {[]*envoy.Resource{large(1), large(2 << 20), large(1)}, []int{1, 1, 1}},
		"too large":   {[]*envoy.Resource{large(2<<20 + 1)}, nil},
		"too much": {[]*envoy.Resource{
			large(2 << 20), large(2 << 20), large(2 << 20), large(2 << 20), large(2 << 20), large(2 << 20),
			large(2 << 20), large(2 << 20), large(2 << 20), large(2 << 20), large(2 << 20), large(2 << 20),
			large(2 << 20), large(2 << 20), large(2 << 20), large(2 << 20), large(1),
		}, nil},
	} {
		parts, err := trialParts(7, "default/web", c.resources)
		var got []int
		for i, p := range parts {
			got = append(got, len(p.Resources))
			if p.ID != 7 || p.Workload != "default/web" || p.More != (i < len(parts)-1) {
				t.Errorf("%s: part %d is %d for %s, more %v", name, i, p.ID, p.Workload, p.More)
			}
		}
		if !reflect.DeepEqual(got, c.want) || (err != nil) != (c.want == nil) {
			t.Errorf("%s: parts of %v (%v), want %v", name, got, err, c.want)
		}
	}
}

func TestGist(t *testing.T) {
	t.Parallel()
	for words, want := range map[string]string{
		"exit status 1: [2026-11-28][1][critical][main] [source/server/config_validation/server.cc:74] error initializing configuration '/x/envoy.json': duplicate":               "error initializing configuration '/x/envoy.json': duplicate",
		"signal: aborted: [2026][critical] std::terminate called!\n[2026][critical][assert] [a.cc:1] assert failure: x. Details: bad\n[2026][critical][backtrace] Caught Aborted": "assert failure: x. Details: bad",
		"signal: aborted: [2026][1][critical][main] [source/exe/terminate_handler.cc:36] std::terminate called! Uncaught EnvoyException: bad":                                     "std::terminate called! Uncaught EnvoyException: bad",
		"signal: killed:": "signal: killed:",
	} {
		if got := mainLine(words); got != want {
			t.Errorf("of %q: %q, want %q", words, got, want)
		}
	}
}

func TestTrialOfWhoIsAway(t *testing.T) {
	t.Parallel()
	ts := trials{open: map[string]*trialStream{}}
	err := ts.try(context.Background(), "node-a/default/web", nil)
	var no contain.Refusal
	if err == nil || errors.As(err, &no) {
		t.Errorf("got %v", err)
	}
}
