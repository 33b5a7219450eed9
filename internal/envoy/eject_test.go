package envoy

import (
	"testing"

	"isthmus.dev/isthmus/internal/model"
)

// Envoy counts three statuses of gRPC in a row, which an application may answer as it likes, as failures of the
// endpoint: where there may be gRPC nothing that is answered ejects.
func TestNoAnswerOfGRPCEjects(t *testing.T) {
	for p, want := range map[model.Protocol]uint32{model.HTTP: 100, model.HTTP2: 0, model.GRPC: 0} {
		d := quickToEject(cluster("x", nil), p).OutlierDetection
		if got := d.GetEnforcingConsecutive_5Xx(); d.EnforcingConsecutive_5Xx == nil || got.GetValue() != want {
			t.Errorf("%v: what is answered ejects in %v of 100 cases, want %d", p, got, want)
		}
		if d.EnforcingConsecutiveGatewayFailure.GetValue() != 0 ||
			d.EnforcingConsecutiveLocalOriginFailure.GetValue() != 100 {
			t.Errorf("%v: %v", p, d)
		}
	}
}
