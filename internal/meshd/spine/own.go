package spine

import (
	"isthmus.dev/isthmus/internal/envoy"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/view"
)

// ownSets records the proxies that have their own form of an endpoint set, by its shared form.
type ownSets map[model.EndpointSet]map[string]bool

// replace replaces the sets of a proxy's previous view by those of its next one. Either may be nil. It returns the
// changed sets by name; nil for removed ones.
func (o ownSets) replace(before, next *view.View, mesh *model.Mesh) map[string]*envoy.Resource {
	changed := map[string]*envoy.Resource{}
	for _, set := range ownOf(before) {
		delete(o[set.Shared()], set.Proxy)
		if len(o[set.Shared()]) == 0 {
			delete(o, set.Shared())
		}
		changed[envoy.SetName(set)] = nil
	}
	for _, set := range ownOf(next) {
		if o[set.Shared()] == nil {
			o[set.Shared()] = map[string]bool{}
		}
		o[set.Shared()][set.Proxy] = true
		changed[envoy.SetName(set)] = envoy.EndpointsFor(next, set, mesh.Endpoints)
	}
	return changed
}

func ownOf(v *view.View) (out []model.EndpointSet) {
	if v == nil {
		return nil
	}
	for _, set := range v.Sets {
		if set.Proxy != "" {
			out = append(out, set)
		}
	}
	return out
}

// publishOwn sends proxies their own forms of changed endpoint sets.
func (l *Loop) publishOwn(sets []model.EndpointSet, mesh *model.Mesh) {
	changed := map[string]*envoy.Resource{}
	for _, set := range sets {
		for proxy := range l.own[set] {
			own := set
			own.Proxy = proxy
			changed[envoy.SetName(own)] = envoy.EndpointsFor(l.views[proxy], own, mesh.Endpoints)
		}
	}
	if len(changed) > 0 {
		l.Proxies.PublishEndpoints(changed)
	}
}
