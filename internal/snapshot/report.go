package snapshot

import "isthmus.dev/isthmus/internal/finding"

// Report is what a node's agent last reported as wrong.
type Report struct {
	Node string
	// Refused are the parts of the report that exceed the node's grant, sorted by workload.
	Refused []finding.Finding
	// Troubles and Outside concern the node's own workloads.
	Troubles []Trouble
	Outside  []Outside
}

// Trouble says why one workload of a node is not served. The node's other workloads are unaffected.
type Trouble struct {
	Workload string `json:"workload"` // "<namespace>/<name>"
	Reason   string `json:"reason"`
	Absent   bool   `json:"absent,omitempty"` // its network namespace does not exist
}

// Outside is the part of a workload's traffic that bypasses the mesh with its node's knowledge.
type Outside struct {
	Workload string `json:"workload"` // "<namespace>/<name>"
	// Ports are inbound ports excluded from capture.
	Ports []uint16 `json:"ports,omitempty"`
	// Connections were open before capture began and still are. The list is a sample; Count is the total.
	Connections []string `json:"connections,omitempty"`
	Count       int      `json:"count,omitempty"`
	// Plaintext lists callers that used plaintext on a PERMISSIVE port. The list is a sample; PlaintextCount is the
	// total.
	Plaintext      []string `json:"plaintext,omitempty"`
	PlaintextCount int      `json:"plaintextCount,omitempty"`
}

// Contained is a proxy whose Envoy rejects the current configuration.
type Contained struct {
	Proxy string
	// Quarantined are the objects that are closed for this proxy, sorted by key.
	Quarantined []Quarantined
	// Stuck says why no object could be blamed; empty otherwise.
	Stuck string
	// Held means that the proxy stays on an earlier configuration.
	Held bool
}

// Quarantined is an object that is closed for one proxy, and why.
type Quarantined struct {
	Key    Key
	Reason string
}
