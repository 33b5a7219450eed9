package model

// Outbound is one destination that a workload may call, and the route its calls take.
type Outbound struct {
	Service *Service
	Port    *Port
	Route   *Route
	By      []Ref
}

// Route is where calls lead. Every call of an Outbound takes the same route today. A VirtualService will yield several,
// each with a match (path, method, headers) and actions (timeout, retries, redirect, rewrite, mirror). A
// DestinationRule subset will be a Destination with an EndpointSet and Port of its own: fewer endpoints and fewer
// identities.
type Route struct {
	// To lists the destinations that share the calls, by priority. It is empty when nothing can serve now.
	To []Destination
	// Set identifies the endpoints of all destinations.
	Set EndpointSet
	// Resolved is set when some endpoints are host names. The proxy resolves them, so they are sent with the route, not
	// over EDS.
	Resolved bool
	// Changing is set when the servers come and go under a fixed name. No connection may depend on which servers they
	// are.
	Changing bool
	// Absent says why other servers cannot serve now, a clause each: "peer cards is suspended".
	Absent []string
}

// Destination takes a share of a route's calls. Destinations of equal priority share by weight, whatever the number of
// their endpoints. Those of a higher priority number serve only when none of a lower number can.
type Destination struct {
	Name     string // a MeshPeer's name, or one of the constants below
	SNI      string // server name to ask a peer's gateway for; empty inside the mesh
	Priority uint32 // from 0, without gaps
	Weight   uint32
}

// Names of destinations that are not peers. No MeshPeer can have such a name.
const (
	OwnEndpoints = "(local)"    // the service's own endpoints in this mesh
	OwnGateways  = "(gateways)" // this mesh's gateways, which carry calls to peers
)

// ToService returns the route to a service's own endpoints.
func ToService(svc *Service, port *Port) *Route {
	return &Route{To: ownEndpoints, Set: EndpointSet{Host: svc.Host, Port: port.Number}, Resolved: svc.DNS}
}

var ownEndpoints = []Destination{{Name: OwnEndpoints}}

// LeadsOnlyTo reports whether a route has this destination and no other.
func (r *Route) LeadsOnlyTo(to string) bool { return len(r.To) == 1 && r.To[0].Name == to }

// Endpoints collects the endpoints of each destination. If there are several destinations, each endpoint names its own.
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

// Set identifies the service's own endpoints, in the shared form.
func (o Outbound) Set() EndpointSet { return EndpointSet{Host: o.Service.Host, Port: o.Port.Number} }
