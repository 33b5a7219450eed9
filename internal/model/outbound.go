package model

// Outbound is one service port that a workload may call, and where its calls lead.
type Outbound struct {
	Service *Service
	Port    *Port
	// Routes are tried in order; the first one that matches a request decides. A request that none matches is refused.
	// Raw connections take the first route without a Match.
	Routes []*Route
	By     []Ref
}

// Set identifies the service's own endpoints, in the shared form.
func (o Outbound) Set() EndpointSet { return EndpointSet{Host: o.Service.Host, Port: o.Port.Number} }

// Destinations lists all destinations of all routes, those of mirrored requests included. One may be listed repeatedly.
func (o Outbound) Destinations() []*Destination {
	var out []*Destination
	for _, r := range o.Routes {
		for i := range r.To {
			out = append(out, &r.To[i])
		}
		if r.Actions == nil {
			continue
		}
		for i := range r.Actions.Mirrors {
			out = append(out, &r.Actions.Mirrors[i].To)
		}
	}
	return out
}

// Sole returns the destination to which all calls lead unchanged, or nil if they may differ.
func (o Outbound) Sole() *Destination {
	if len(o.Routes) != 1 {
		return nil
	}
	if r := o.Routes[0]; r.Match == nil && r.Actions == nil && len(r.To) == 1 {
		return &r.To[0]
	}
	return nil
}

// Route leads the requests that it matches to destinations.
type Route struct {
	Match   *RequestMatch // nil matches all calls
	Actions *Actions      // nil forwards requests unchanged
	// To lists the destinations that share the calls by weight. They speak the protocol of the Outbound's port, or, for
	// HTTP, any version of HTTP. The sum of the weights fits an uint32.
	To []Destination
}

// RoutesTo returns the routes of an Outbound whose calls all lead to one destination.
func RoutesTo(d Destination) []*Route { return []*Route{{To: []Destination{d}}} }

// Destination is a service port, or a subset of its endpoints, that takes a share of a route's calls. For a given
// caller, all destinations with the same Called are the same but for their weight.
type Destination struct {
	Service *Service
	Port    *Port  // of a subset: with the identities and workloads of the subset alone
	Weight  uint32 // a destination of weight 0 gets no calls, unless it is the only one
	// Set identifies the endpoints of all groups.
	Set EndpointSet
	// Groups lists the groups of endpoints that share the calls, by priority. It is empty when nothing can serve now.
	Groups []Group
	// Resolved is set when some endpoints are host names. The proxy resolves them, so they are sent with the route, not
	// over EDS.
	Resolved bool
	// Changing is set when the servers come and go under a fixed name. No connection may depend on which servers they
	// are.
	Changing bool
	// Absent says why other groups cannot serve now, a clause each: "peer cards is suspended".
	Absent []string
}

// Group is a part of a destination's endpoints that is reached in its own way. Groups of equal priority share calls by
// weight, whatever the number of their endpoints. Those of a higher priority number serve only when none of a lower
// number can.
type Group struct {
	Name     string // a MeshPeer's name, or one of the constants below
	SNI      string // server name to ask a peer's gateway for; empty inside the mesh
	Priority uint32 // from 0, without gaps
	Weight   uint32
}

// Names of groups that are not peers. No MeshPeer can have such a name.
const (
	OwnEndpoints = "(local)"    // the service's own endpoints in this mesh
	OwnGateways  = "(gateways)" // this mesh's gateways, which carry calls to peers
)

// ToService returns the destination that consists of a service's own endpoints.
func ToService(svc *Service, port *Port) Destination {
	return Destination{
		Service: svc, Port: port, Groups: ownEndpoints, Set: EndpointSet{Host: svc.Host, Port: port.Number},
		Resolved: svc.DNS,
	}
}

var ownEndpoints = []Group{{Name: OwnEndpoints}}

// Called identifies a destination by the name under which callers know it. Set may differ, since an import's endpoints
// may be gateways.
func (d *Destination) Called() EndpointSet {
	return EndpointSet{Host: d.Service.Host, Port: d.Port.Number, Subset: d.Set.Subset}
}

// LeadsOnlyTo reports whether a destination has this group and no other.
func (d *Destination) LeadsOnlyTo(group string) bool {
	return len(d.Groups) == 1 && d.Groups[0].Name == group
}

// Endpoints collects the endpoints of each group. Each endpoint names its group.
func (d *Destination) Endpoints(of func(Group) []Endpoint) []Endpoint {
	var out []Endpoint
	for _, g := range d.Groups {
		for _, e := range of(g) {
			e.Group = g
			out = append(out, e)
		}
	}
	return out
}
