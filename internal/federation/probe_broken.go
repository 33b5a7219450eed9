package federation

// between says which leg between the two gateways broke.
func (pr *probing) between(l leg) {
	pr.fail(dialPeer, l.failed+" | "+l.reason+" | "+l.at+" | "+l.connect.String(), "")
}
