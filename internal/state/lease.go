package state

// Lease is the exclusive right of one control plane to a task, until it expires.
type Lease struct {
	Name   string
	Holder string
	// Token grows each time that the lease gets another holder, or the same one after an interruption.
	Token uint64
	// Data is set by the holder for readers of the lease.
	Data []byte
}
