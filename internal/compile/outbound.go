package compile

import (
	"cmp"
	"maps"
	"slices"

	"isthmus.dev/isthmus/internal/model"
)

// outbound gives every workload the destinations that it may call, and no others: need to know. Where they are too many
// the oldest stand.
func outbound(c *compiler) {
	byID := map[string][]*model.Workload{}
	for _, w := range c.mesh.Workloads {
		byID[w.Identity.String()] = append(byID[w.Identity.String()], w)
	}
	for _, svc := range c.oldest(maps.Values(c.mesh.Services)) {
		for _, port := range svc.Ports {
			o, callers := c.destination(svc, port)
			for _, caller := range callers {
				for _, w := range byID[caller.ID] {
					if len(w.Outbound) >= maxWorkloadDestinations {
						c.leaveOut(svc, 1)
						continue
					}
					o.By = caller.By
					w.Outbound = append(w.Outbound, o)
				}
			}
		}
	}
	c.limitProxies()
	for _, w := range c.mesh.Workloads {
		sortOutbound(w.Outbound)
	}
}

func sortOutbound(list []model.Outbound) {
	slices.SortFunc(list, func(a, b model.Outbound) int {
		return cmp.Or(cmp.Compare(a.Service.Host, b.Service.Host), cmp.Compare(a.Port.Number, b.Port.Number))
	})
}

// destination is a port as its callers find it, and who they are: an import's own list decides for an imported port,
// the servers' policies for any other. Whether anybody serves an import now is not asked: its callers find it under the
// same name and address, and are told why they have to wait.
func (c *compiler) destination(svc *model.Service, port *model.Port) (model.Outbound, []model.Caller) {
	imp := c.imported[model.EndpointSet{Host: svc.Host, Port: port.Number}]
	if imp == nil {
		return model.Outbound{Service: svc, Port: port, Route: model.ToService(svc, port)}, port.Callers
	}
	if imp.Local == nil { // who serves the port here does not matter, nor what they speak
		port = &model.Port{Number: port.Number, Protocol: imp.Protocol}
	}
	var callers []model.Caller
	for _, id := range imp.Callers {
		callers = append(callers, model.Caller{ID: id, By: []model.Ref{imp.Ref}})
	}
	return model.Outbound{Service: svc, Port: port, Route: imp.RouteAtCallers(gatewaySet)}, callers
}
