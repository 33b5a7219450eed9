package model

// Outbound is one destination that a workload may call, and the route that its calls take.
type Outbound struct {
	Service *Service
	Port    *Port
	Route   *Route
	By      []Ref
}

// Route says where calls lead. Today all calls of an Outbound take the same one. The routes of a VirtualService will be
// several in its place, each with what it matches (path, method, headers) and what it does to a call (timeout, retries,
// redirect, rewrite, mirror); their destinations are these. A subset (DestinationRule) will be a destination with an
// EndpointSet and a Port of its own: fewer endpoints, and fewer identities.
type Route struct {
	// To are those among whom the calls are shared, in the order of their priorities; empty where nobody can serve now.
	To []Destination
	// Set holds the endpoints of all of them.
	Set EndpointSet
	// Resolved: there are host names among the endpoints. The proxy resolves them, so that they come with the route.
	Resolved bool
	// Changing: those who serve come and go while the name stays. No connection may depend on which they are.
	Changing bool
	// Absent says why others cannot serve now, a clause each: "peer cards is suspended".
	Absent []string
}

// Destination is one of those among whom a route shares calls. Those of one priority share them by their weights,
// whatever the number of their endpoints; those of a higher number serve while none of a lower number can.
type Destination struct {
	Name     string // of the MeshPeer, or one of those below
	SNI      string // by which a peer's gateway is asked; empty inside the mesh
	Priority uint32 // from 0, without gaps
	Weight   uint32
}

// What a destination is that is no peer. No MeshPeer has such a name.
const (
	OwnEndpoints = "(local)"    // of the service, in this mesh
	OwnGateways  = "(gateways)" // of this mesh, which carry calls to peers
)

// ToService is the route to a service's own endpoints.
func ToService(svc *Service, port *Port) *Route {
	return &Route{To: ownEndpoints, Set: EndpointSet{Host: svc.Host, Port: port.Number}, Resolved: svc.DNS}
}

var ownEndpoints = []Destination{{Name: OwnEndpoints}}

// Leads says that the only destination of a route is this one.
func (r *Route) Leads(to string) bool { return len(r.To) == 1 && r.To[0].Name == to }

// Endpoints of a route are those of each of its destinations, which they name.
func (r *Route) Endpoints(of func(Destination) []Endpoint) []Endpoint {
	var out []Endpoint
	for _, d := range r.To {
		for _, e := range of(d) {
			e.Destination = d
			out = append(out, e)
		}
	}
	return out
}

// Set is the shared form of the endpoint set of the service's own endpoints, which names the destination.
func (o Outbound) Set() EndpointSet { return EndpointSet{Host: o.Service.Host, Port: o.Port.Number} }
