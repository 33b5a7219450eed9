package istioyaml

import (
	"testing"

	"isthmus.dev/isthmus/internal/kind"
)

// A protobuf message has an empty list as if it were not written, and in a policy that would mean anybody. So each kind
// of security that is one has a judge of what is written. What is read is no more among what is not.
func TestEverySecurityKindIsJudgedAsWritten(t *testing.T) {
	for _, k := range kind.All {
		if k.Security() && k.Family == kind.Istio && written[k.Name] == nil {
			t.Errorf("%s: add what it must not leave empty to written (typed.go)", k.Name)
		}
	}
	for _, k := range unreadSecurity {
		if _, read := kind.Named(k[0]); read {
			t.Errorf("%s is read: take it out of unreadSecurity (head.go)", k[0])
		}
	}
	for name := range written {
		if _, read := kind.Named(name); !read {
			t.Errorf("%s is judged and of no kind", name)
		}
	}
}
