package admin

import (
	"testing"

	"isthmus.dev/isthmus/internal/adminapi"
)

// A gateway that is not reached shows in a check, and what a peer does not tell a probe does not.
func TestCheckWay(t *testing.T) {
	well := adminapi.Check{Name: "peer bank", State: "ok", Detail: "trusted, fresh, in step"}
	ok := adminapi.ProbeLeg{To: "own gateway", Step: "connect", State: adminapi.LegOK}
	untried := adminapi.ProbeLeg{To: "gateway of bank", Step: "handshake", State: adminapi.LegUntried}
	if got := checkPath(well, []adminapi.ProbeLeg{
		ok,
		{To: "its control plane", Step: "answer", State: adminapi.LegFailed},
	}); got != well {
		t.Errorf("no answer to the probe itself: %+v", got)
	}
	dead := adminapi.ProbeLeg{
		To: "gateway of bank", Step: "connect", State: adminapi.LegFailed, Detail: "nobody listens at 192.0.2.2:15443",
		Remedy: "call them",
	}
	want := adminapi.Check{
		Name: "peer bank", State: "warning", Detail: "connect of gateway of bank: nobody listens at 192.0.2.2:15443",
		Remedy: "call them",
	}
	if got := checkPath(well, []adminapi.ProbeLeg{ok, dead, untried}); got != want {
		t.Errorf("no connection: %+v", got)
	}
}
