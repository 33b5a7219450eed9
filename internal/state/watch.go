package state

// Topic is the kind of data that was written.
type Topic string

// Topics that can be watched.
const (
	// Everything stands for all topics: the watcher has missed changes and must read everything again.
	Everything  Topic = ""
	Nodes       Topic = "nodes"       // by name: attested, registered, revoked
	Agents      Topic = "agents"      // by node: connected, reported, gone
	Peers       Topic = "peers"       // by name
	Invitations Topic = "invitations" // invitations, and acceptances in progress
	Admins      Topic = "admins"      // by name
	Addresses   Topic = "addresses"   // virtual addresses
	Authority   Topic = "authority"   // CA material and the rotation
	Quarantined Topic = "quarantined"
	Ages        Topic = "ages" // of objects: some are not kept any more
)

// Topics are all but Everything.
var Topics = []Topic{Nodes, Agents, Peers, Invitations, Admins, Addresses, Authority, Quarantined, Ages}

// Change says that something was written, not what; interested parties read it.
type Change struct {
	Topic Topic
	Key   string // empty: any of the topic
	Here  bool   // written by this process
}
