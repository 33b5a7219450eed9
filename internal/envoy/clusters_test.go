package envoy

import "testing"

// A program that fails at one request is not taken from everybody for it: what counts against an endpoint is that it
// was not reached.
func TestOnlyWhatIsNotReachedCounts(t *testing.T) {
	headers := unavailable.GetHttpResponseHeadersMatch().GetHeaders()
	if len(headers) != 1 || headers[0].GetName() != "isthmus-unavailable" ||
		headers[0].GetStringMatch().GetExact() != "not-begun" {
		t.Errorf("these answers count as failures of their endpoint: %v", headers)
	}
}
