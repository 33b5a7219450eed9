package adminapi

// InventoryResponse is what the mesh serves, and who is in it.
type InventoryResponse struct {
	Services  []ServiceInfo  `json:"services"`
	Workloads []WorkloadInfo `json:"workloads"`
}

// ServiceInfo is a name that workloads may call.
type ServiceInfo struct {
	Host      string        `json:"host"`
	Namespace string        `json:"namespace"`
	Name      string        `json:"name"`
	Addresses []string      `json:"addresses"` // its own, and those of a ServiceEntry (CIDR)
	External  bool          `json:"external"`  // outside the mesh: no mutual TLS, no identity
	ExportTo  []string      `json:"exportTo"`  // namespaces that see it; none means all
	From      []string      `json:"from"`      // the objects it comes from
	Ports     []ServicePort `json:"ports"`
}

// ServicePort is one port of a service.
type ServicePort struct {
	Number    uint16            `json:"number"`
	Protocol  string            `json:"protocol"`
	MTLS      bool              `json:"mTLS"`
	Endpoints []ServiceEndpoint `json:"endpoints"` // of this mesh
	Peers     []ServingPeer     `json:"peers"`     // that serve an import, those that may be used now
	Callers   []string          `json:"callers"`   // SPIFFE IDs of this mesh
}

// Ready returns how many of the endpoints serve.
func (p ServicePort) Ready() int {
	n := 0
	for _, e := range p.Endpoints {
		if e.Ready {
			n++
		}
	}
	return n
}

// ServiceEndpoint is one place where a port is served.
type ServiceEndpoint struct {
	Address  string `json:"address"` // host:port
	Other    string `json:"other,omitempty"`
	Workload string `json:"workload,omitempty"` // namespace/name
	Node     string `json:"node,omitempty"`
	Ready    bool   `json:"ready"`
	// Silent: its node is, so that nobody knows; it is called where no other endpoint is ready.
	Silent bool `json:"silent,omitempty"`
}

// ServingPeer is a peer that serves an import.
type ServingPeer struct {
	Peer     string `json:"peer"`
	Name     string `json:"name"` // under which the peer exports it, as the gateways ask for it (SNI)
	Weight   uint32 `json:"weight"`
	Priority uint32 `json:"priority"`
	// Unready is why it cannot be served there now, as far as the peer says; empty where it can.
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
	Silent    bool           `json:"silent,omitempty"` // its node is, so that nobody knows whether it is ready
	Mode      string         `json:"mode"`             // of mutual TLS, at ports that no service names
	Ports     []WorkloadPort `json:"ports"`
	Calls     []AccessEdge   `json:"calls"`
}

// Key returns namespace/name.
func (w WorkloadInfo) Key() string { return w.Namespace + "/" + w.Name }

// WorkloadPort is one port that a workload serves.
type WorkloadPort struct {
	Number   uint16   `json:"number"`
	Protocol string   `json:"protocol"`
	Mode     string   `json:"mode"` // STRICT, PERMISSIVE or DISABLE
	Hosts    []string `json:"hosts"`
	Policies []string `json:"policies"` // "DENY AuthorizationPolicy default/x (file:line)"
	Default  string   `json:"default"`  // what applies where no ALLOW policy selects the port: allow or deny
}
