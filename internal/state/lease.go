package state

// Lease is the right to do what only one control plane may do, until it ends.
type Lease struct {
	Name   string
	Holder string
	// Token is a number that is higher each time that another holder, or the same one after a break, has the lease.
	Token uint64
	// Data is what the holder says to whoever reads the lease.
	Data []byte
}
