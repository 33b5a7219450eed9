package state

// Topic is what sort of thing was written.
type Topic string

// Topics that can be watched.
const (
	// Everything stands for all topics: the watcher has missed something and must read all again.
	Everything  Topic = ""
	Nodes       Topic = "nodes"       // by name: attested, registered, revoked
	Agents      Topic = "agents"      // by node: connected, reported, gone
	Peers       Topic = "peers"       // by name
	Invitations Topic = "invitations" // invitations, and acceptances under way
	Admins      Topic = "admins"      // by name
	Addresses   Topic = "addresses"   // virtual addresses
	Authority   Topic = "authority"   // CA material and the rotation
	Quarantined Topic = "quarantined"
	Ages        Topic = "ages" // of objects: some are not kept any more
)

// Change says that something was written. It does not say what: who cares reads it.
type Change struct {
	Topic Topic
	Key   string // empty: any of the topic
	Here  bool   // this process wrote it
}
