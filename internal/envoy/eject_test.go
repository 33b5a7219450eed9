package envoy

import (
	"testing"

	"google.golang.org/protobuf/types/known/wrapperspb"
)

// An application may answer as it likes, and of gRPC Envoy counts an answer's status as a failure of the endpoint: so
// nothing that is answered ejects, and what cannot be reached does.
func TestNoAnswerEjects(t *testing.T) {
	d := ejectFailing(cluster("x", nil)).OutlierDetection
	for what, percent := range map[string]*wrapperspb.UInt32Value{
		"errors in a row":         d.EnforcingConsecutive_5Xx,
		"gateway errors in a row": d.EnforcingConsecutiveGatewayFailure,
		"the rate of errors":      d.EnforcingSuccessRate,
	} {
		if percent == nil || percent.Value != 0 {
			t.Errorf("%s eject in %v of 100 cases, want 0", what, percent)
		}
	}
	if !d.SplitExternalLocalOriginErrors || d.EnforcingConsecutiveLocalOriginFailure.GetValue() != 100 {
		t.Errorf("what cannot be reached is not ejected: %v", d)
	}
}
