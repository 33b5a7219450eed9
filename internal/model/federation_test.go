package model

import (
	"slices"
	"testing"
)

// Where an import's calls lead: from its callers to local endpoints, to the mesh's gateways or to both, and from the
// gateways to the peers. Priorities are numbered without gaps, and the gateways stand for the peers that serve first.
func TestRoutesOfAnImport(t *testing.T) {
	gateways := EndpointSet{Host: "gateway.isthmus-system", Port: 15444}
	remote := func(peer string, priority, weight uint32, addresses ...string) Remote {
		return Remote{
			Peer: &Peer{Name: peer, Addresses: addresses}, SNI: peer + ".fed", Priority: priority, Weight: weight,
		}
	}
	bank, shop := remote("bank", 3, 5, "192.0.2.1:15443"), remote("shop", 7, 2, "gateway.shop.example:15443")
	twin := remote("twin", 3, 1, "192.0.2.2:15443")
	for _, c := range []struct {
		name     string
		local    *LocalPart
		remotes  []Remote
		callers  []Group
		set      string
		gateways []Group
		resolved bool
	}{
		{name: "nobody"},
		{
			name: "the local service alone", local: &LocalPart{Weight: 4, Priority: 2},
			callers: []Group{{Name: "(local)"}}, set: "pay.default.svc.cluster.local",
		},
		{
			name: "peers alone", remotes: []Remote{bank, twin, shop},
			callers: []Group{{Name: "(gateways)"}}, set: "gateway.isthmus-system",
			gateways: []Group{
				{Name: "bank", SNI: "bank.fed", Weight: 5},
				{Name: "twin", SNI: "twin.fed", Weight: 1},
				{Name: "shop", SNI: "shop.fed", Priority: 1, Weight: 2},
			},
			resolved: true,
		},
		{
			name: "the local service first", local: &LocalPart{Weight: 4}, remotes: []Remote{bank},
			callers:  []Group{{Name: "(local)", Weight: 4}, {Name: "(gateways)", Priority: 1, Weight: 5}},
			set:      "mixed/pay.default.svc.cluster.local",
			gateways: []Group{{Name: "bank", SNI: "bank.fed", Weight: 5}},
		},
		{
			name: "both at once", local: &LocalPart{Weight: 4, Priority: 3}, remotes: []Remote{bank, twin},
			callers: []Group{{Name: "(local)", Weight: 4}, {Name: "(gateways)", Weight: 6}},
			set:     "mixed/pay.default.svc.cluster.local",
			gateways: []Group{
				{Name: "bank", SNI: "bank.fed", Weight: 5}, {Name: "twin", SNI: "twin.fed", Weight: 1},
			},
		},
		{
			name: "peers first", local: &LocalPart{Weight: 4, Priority: 9}, remotes: []Remote{bank},
			callers:  []Group{{Name: "(gateways)", Weight: 5}, {Name: "(local)", Priority: 1, Weight: 4}},
			set:      "mixed/pay.default.svc.cluster.local",
			gateways: []Group{{Name: "bank", SNI: "bank.fed", Weight: 5}},
		},
	} {
		i := &Import{Host: "pay.default.svc.cluster.local", Port: 80, Local: c.local, Remotes: c.remotes}
		callers, at := i.AtCallers(gateways), i.AtGateways()
		if !slices.Equal(callers.Groups, c.callers) ||
			callers.Set.Host != c.set || !callers.Changing || callers.Resolved {
			t.Errorf("%s: callers are led by %+v", c.name, callers)
		}
		if !slices.Equal(at.Groups, c.gateways) || at.Set.Host != "import/pay.default.svc.cluster.local" ||
			at.Resolved != c.resolved {
			t.Errorf("%s: gateways lead by %+v", c.name, at)
		}
	}
}

func TestEndpointsOfADestination(t *testing.T) {
	d := &Destination{Groups: []Group{{Name: "bank", Weight: 3}, {Name: "(local)", Priority: 1}}}
	got := d.Endpoints(func(g Group) []Endpoint {
		if g.Name == "bank" {
			return []Endpoint{{Port: 1}, {Port: 2}}
		}
		return []Endpoint{{Port: 3, Group: Group{Name: "stale"}}}
	})
	want := []Endpoint{
		{Port: 1, Group: Group{Name: "bank", Weight: 3}},
		{Port: 2, Group: Group{Name: "bank", Weight: 3}},
		{Port: 3, Group: Group{Name: "(local)", Priority: 1}},
	}
	if !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
}
