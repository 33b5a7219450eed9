package envoy

import (
	"testing"

	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
)

func TestFiltersWithoutAPlace(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a filter that is not in the order was taken")
		}
	}()
	addHTTPFilters(&hcmv3.HttpConnectionManager{}, newHTTPFilter(routerFilter, nil), newHTTPFilter("new", nil))
}
