package compile

import (
	"fmt"
	"slices"

	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
	corev1 "k8s.io/api/core/v1"
)

// unready reports ports without a usable endpoint. That is no fault in itself, so it is not among Known.
func (c *Compiled) unready() []finding.Finding {
	var out []finding.Finding
	for _, ns := range c.gathered.sorted {
		out = append(out, c.link.unready[ns].out...)
	}
	return out
}

func (l *linker) findUnready() {
	l.now.unready = map[string]made[[]finding.Finding]{}
	for _, ns := range l.in.sorted {
		services, endpoints := l.now.services.of(ns), l.parts[ns].endpoints
		l.now.unready[ns] = l.before.unready[ns].again([]any{services, endpoints}, func() []finding.Finding {
			return unready(*services, *endpoints)
		})
	}
}

func unready(
	services map[model.ServiceID]*model.Service, endpoints map[model.EndpointSet][]model.Endpoint,
) (out []finding.Finding) {
	for _, svc := range services {
		for _, p := range svc.Ports {
			eps := endpoints[model.EndpointSet{Host: svc.Host, Port: p.Number}]
			if len(eps) == 0 || slices.ContainsFunc(eps, func(e model.Endpoint) bool { return e.Healthy }) {
				continue
			}
			var by []string
			for _, e := range eps {
				if e.By != (model.WorkloadID{}) {
					by = append(by, e.By.String())
				}
			}
			out = append(out, finding.New("ISM0301",
				snapshot.KeyFor[*corev1.Service](svc.ID.Namespace, svc.ID.Name), "",
				fmt.Sprintf("none of its %d endpoints at port %d is ready (%s), so every call fails", len(eps),
					p.Number,
					finding.Abbreviate(by))))
		}
	}
	finding.Sort(out)
	return out
}
