package adminapi

// InventoryResponse lists the services and workloads of the mesh.
type InventoryResponse struct {
	Services  []ServiceInfo  `json:"services"`
	Workloads []WorkloadInfo `json:"workloads"`
}

// ServiceInfo is a service that workloads may call.
type ServiceInfo struct {
	Host      string        `json:"host"`
	Namespace string        `json:"namespace"`
	Name      string        `json:"name"`
	Addresses []string      `json:"addresses"` // virtual addresses, and those of a ServiceEntry (CIDR)
	External  bool          `json:"external"`  // outside the mesh: no mutual TLS, no identity
	ExportTo  []string      `json:"exportTo"`  // namespaces that see it; empty means all
	From      []string      `json:"from"`      // the objects that it was compiled from
	Ports     []ServicePort `json:"ports"`
}

// ServicePort is one port of a service.
type ServicePort struct {
	Number    uint16            `json:"number"`
	Protocol  string            `json:"protocol"`
	MTLS      bool              `json:"mTLS"`
	Endpoints []ServiceEndpoint `json:"endpoints"` // in this mesh
	Peers     []ServingPeer     `json:"peers"`     // peers that serve an import and may be used now
	Callers   []string          `json:"callers"`   // SPIFFE IDs in this mesh
}

// Ready returns the number of ready endpoints.
func (p ServicePort) Ready() int {
	n := 0
	for _, e := range p.Endpoints {
		if e.Ready {
			n++
		}
	}
	return n
}

// ServiceEndpoint is one address at which a port is served.
type ServiceEndpoint struct {
	Address  string `json:"address"` // host:port
	Other    string `json:"other,omitempty"`
	Workload string `json:"workload,omitempty"` // namespace/name
	Node     string `json:"node,omitempty"`
	Ready    bool   `json:"ready"`
	// Silent means that its node is unheard of, so its state is unknown. It is used only if no other endpoint is ready.
	Silent bool `json:"silent,omitempty"`
}

// ServingPeer is a peer that serves an import.
type ServingPeer struct {
	Peer     string `json:"peer"`
	Name     string `json:"name"` // the peer's export name, as in the SNI
	Weight   uint32 `json:"weight"`
	Priority uint32 `json:"priority"`
	// Unready says why the peer cannot serve it now, as far as the peer reports; empty if it can.
	Unready string `json:"unready,omitempty"`
}

// WorkloadInfo is one registered workload.
type WorkloadInfo struct {
	Namespace string         `json:"namespace"`
	Name      string         `json:"name"`
	Identity  string         `json:"identity"` // SPIFFE ID
	Node      string         `json:"node"`
	Labels    []string       `json:"labels"` // key=value
	Addresses []string       `json:"addresses"`
	Ready     bool           `json:"ready"`
	Silent    bool           `json:"silent,omitempty"` // its node is unheard of, so its readiness is unknown
	Mode      string         `json:"mode"`             // mTLS mode at ports that no service names
	Ports     []WorkloadPort `json:"ports"`
	Calls     []AccessEdge   `json:"calls"`
}

// Key returns "namespace/name".
func (w WorkloadInfo) Key() string { return w.Namespace + "/" + w.Name }

// WorkloadPort is a port that a workload serves.
type WorkloadPort struct {
	Number   uint16   `json:"number"`
	Protocol string   `json:"protocol"`
	Mode     string   `json:"mode"` // STRICT, PERMISSIVE or DISABLE
	Hosts    []string `json:"hosts"`
	Policies []string `json:"policies"` // "DENY AuthorizationPolicy default/x (file:line)"
	Default  string   `json:"default"`  // what applies if no ALLOW policy selects the port: allow or deny
}
