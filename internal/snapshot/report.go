package snapshot

import "isthmus.dev/isthmus/internal/finding"

// Report is what a node's agent said last, as far as anything about it is wrong.
type Report struct {
	Node string
	// Refused is what of it goes beyond the node's grant, sorted by workload.
	Refused []finding.Finding
	// Troubles and Outside are of the node's own workloads.
	Troubles []Trouble
	Outside  []Outside
}

// Trouble is why a workload of a node is not served. The others of the node are.
type Trouble struct {
	Workload string `json:"workload"` // "<namespace>/<name>"
	Reason   string `json:"reason"`
	Absent   bool   `json:"absent,omitempty"` // its network namespace is not there
}

// Outside is what of a workload's traffic passes the mesh by, with its node's knowledge.
type Outside struct {
	Workload string `json:"workload"` // "<namespace>/<name>"
	// Ports that are excluded from capture, inbound.
	Ports []uint16 `json:"ports,omitempty"`
	// Connections that were open before capture and go on: some of them, and how many there are.
	Connections []string `json:"connections,omitempty"`
	Count       int      `json:"count,omitempty"`
	// Plaintext are addresses that called a port in plaintext which takes both: some of them, and how many there are.
	Plaintext      []string `json:"plaintext,omitempty"`
	PlaintextCount int      `json:"plaintextCount,omitempty"`
}

// Contained is a proxy whose Envoy cannot live with the configuration as it stands.
type Contained struct {
	Proxy string
	// Quarantined are the objects that are closed there, sorted by key.
	Quarantined []Quarantined
	// Stuck is why no object can be named, in the words of who looked; empty where that is not so.
	Stuck string
	// Held says that it is told an earlier configuration.
	Held bool
}

// Quarantined is an object that is closed at a proxy, and why.
type Quarantined struct {
	Key    Key
	Reason string
}
