package control

import (
	"errors"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Who joins for the first time hears where to look.
func TestUnanswered(t *testing.T) {
	for want, err := range map[string]error{
		"no answer in time: does a control plane run there, and may this host reach that port?": status.Error(
			codes.DeadlineExceeded, "context deadline exceeded while waiting for connections to become ready"),
		"dial tcp 10.1.0.1:15999: connect: connection refused: does a control plane run there, and may this host reach that port?": status.Error(
			codes.Unavailable,
			`connection error: desc = "transport: Error while dialing: dial tcp 10.1.0.1:15999: connect: connection refused"`),
		"tls: failed to verify certificate: x509: certificate has expired or is not yet valid: compare the clocks of this host and " +
			"of the control plane's": errors.New("tls: failed to verify certificate: x509: certificate has expired or is not yet valid"),
		"the state file is full": status.Error(codes.Unavailable, "the state file is full"),
	} {
		if got := connectError(err); got != want {
			t.Errorf("%v: %q", err, got)
		}
	}
}
