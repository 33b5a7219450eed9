package compile

import (
	"testing"

	"isthmus.dev/isthmus/internal/fieldtest"
	"isthmus.dev/isthmus/internal/model"
)

// A field that these comparisons forget would be a change that no proxy is told of. What is compared by pointer is
// shared here.
func TestEveryFieldIsCompared(t *testing.T) {
	pointer := "compared by pointer, which stays only while it says the same"
	for name, wrong := range map[string][]string{
		"sameProxies": fieldtest.Unseen(func(a, b *model.Proxy) bool {
			b.Workloads, b.Sidecars, b.Gateway.Federation = a.Workloads, a.Sidecars, a.Gateway.Federation
			return sameProxies(a, b)
		}, map[string]string{
			"Proxy.Name": "the proxies of one name are compared", "Proxy.Workloads": pointer, "Proxy.Sidecars": pointer,
			"Gateway.Federation": pointer,
		}),
		"sameOutbound": fieldtest.Unseen(func(a, b model.Outbound) bool {
			b.Service, b.Port = a.Service, a.Port
			if len(a.Routes) == len(b.Routes) {
				b.Routes = a.Routes
			}
			return sameOutbound([]model.Outbound{a}, []model.Outbound{b})
		}, map[string]string{
			"Outbound.Service": pointer, "Outbound.Port": pointer, "Route.Match": pointer, "Route.Actions": pointer,
			"Route.To": pointer,
		}),
	} {
		for _, w := range wrong {
			t.Errorf("%s: %s", name, w)
		}
	}
}
