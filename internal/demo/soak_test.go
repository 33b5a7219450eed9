package demo

import (
	"slices"
	"strings"
	"testing"
	"time"

	"isthmus.dev/isthmus/samples/probe"
)

func TestWhatWentOnAsARequestFailed(t *testing.T) {
	at := func(seconds int) time.Time { return time.Unix(int64(seconds), 0) }
	tr := &traffic{events: []event{{"agent killed", at(10), at(14)}, {"policies change", at(16), at(20)}}}
	for _, c := range []struct {
		began, took int
		want        string
	}{
		{8, 1, "before every disturbance"},
		{9, 2, `1.0 s before "agent killed"`},
		{12, 0, `2.0 s into "agent killed"`},
		{12, 5, `2.0 s into "agent killed", 4.0 s before "policies change"`},
		{15, 0, `1.0 s after "agent killed"`},
		{30, 5, `10.0 s after "policies change"`},
	} {
		if got := tr.during(at(c.began), time.Duration(c.took)*time.Second); got != c.want {
			t.Errorf("from %d for %d s: got %q, want %q", c.began, c.took, got, c.want)
		}
	}
}

func TestRequestsThatFailedAlikeAreToldOnce(t *testing.T) {
	tr := &traffic{events: []event{{"agent killed", time.Unix(10, 0), time.Unix(14, 0)}}}
	failure := func(second int64, phase, text string) probe.Failure {
		return probe.Failure{Time: time.Unix(second, 0), Took: time.Second, Phase: phase, Error: text}
	}
	got := tr.failed(probe.Result{Failures: 9, Failed: []probe.Failure{
		failure(11, "connect", "port 41: refused"), failure(12, "resolve", "no answer"),
		failure(12, "connect", "port 42: refused"),
	}})
	want := []string{
		`00:00:11.000 1.000 s, connect: port 41: refused, 1.0 s into "agent killed", and 1 more like it`,
		`00:00:12.000 1.000 s, resolve: no answer, 2.0 s into "agent killed"`,
		`and 6 that were not told one by one`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

func TestVerdict(t *testing.T) {
	failed := func(n int) probe.Result {
		return probe.Result{Requests: 100, Failures: n, Failed: []probe.Failure{
			{Time: time.Unix(0, 0), Took: 5 * time.Second, Phase: "resolve", Error: "no answer"},
		}}
	}
	for _, c := range []struct {
		calm, loss, rough int
		want              string
	}{
		{0, 3, 100, ""},
		{1, 0, 0, "soak: 1 of 100 requests of python failed, the first: 00:00:00.000 5.000 s, resolve: no answer"},
		{0, 4, 0, "soak: 4 of 100 requests of python failed as a source died, 1 times"},
	} {
		tr := &traffic{customers: []customer{{name: "python"}}, losses: 1, counts: [][kinds]probe.Result{
			{failed(0), failed(0), failed(0)}, {failed(c.calm), failed(c.loss), failed(c.rough)},
		}}
		got := ""
		if err := tr.verdict(); err != nil {
			got = err.Error()
		}
		if !strings.HasPrefix(got, c.want) || c.want == "" && got != "" {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}
