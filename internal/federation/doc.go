// Package federation is the control plane's side of peering: invitations and their acceptance, the exchange of SPIFFE
// bundles, the catalogues, and what is known of each peer's health. It makes no Envoy configuration; that follows from
// the snapshot.
//
// # Becoming peers
//
// Invite opens an invitation for one named peer and returns a token: where our gateways are and who they are, the
// fingerprints of our root and of our mesh (peerrules.MeshFingerprint), a one-use secret. Accept, at the other mesh,
// reaches our gateway through its own ("bootstrap.<id>"), speaks TLS to the name "<invite id>.invite.fed.<trust
// domain>", and refuses whoever is not one of the gateways that the token names. Inside that it speaks TLS again, with
// our control plane, which must be spiffe://<trust domain>/isthmus/control under the pinned root; only there it shows
// the secret, together with its own roots, gateway addresses and gateway identities. It proves by its certificate to be
// the control plane of the mesh that it introduces. What we answer must have the fingerprint that stands in the token.
// Each side keeps a MeshPeer and the other's roots. The invitation is one side's consent and the acceptance the
// other's; both sides show the same two fingerprints.
//
// An invitation serves once: of many acceptances at a time one wins. The winner may repeat the very same request (same
// nonce, same content) while the invitation would still be open, so that a lost answer loses nothing; anything else is
// refused. Its id is no secret (it stands in the SNI); who knows it alone gains nothing by it.
//
// Gateways that a mesh adds later are not announced: a peer knows those that it was told of at first, whose service
// account a new one may share (then it has their identity, and only its address is missing), until it peers anew or its
// MeshPeer is edited.
//
// # Being peers
//
// Run asks every peer's bundle endpoint for its roots, through both gateways under the name "control.<peer>", and
// pushes our catalogue. Each exchange is a handshake of its own, so that success proves the whole path. A bundle is the
// whole set of roots; its sequence never goes back; it holds only certificate authorities; none of them may be a root
// of ours or of another peer, for a key that vouches for two trust domains makes each of them able to pose as the
// other.
//
// All of this is said in TLS between the two control planes, which gateways carry inside their own and can neither read
// nor write (channel.go). So a gateway, stolen or not, has no say in it: catalogues, bundles and notices are believed
// of the peer's control plane alone, known by its roots and exact identity, at every request anew. Our gateway's own
// word, the header "isthmus-peer", is believed for probes only.
//
// Catalogues and bundles are ordered by numbers that are times. One that is a time to come is refused, so that nobody
// can use up the numbers.
//
// What a peer sends is bounded in size, count and shape, and becomes nothing but an entry of its own catalogue or its
// own roots: it creates no host, no namespace, no address. Gateway addresses that arrive by peering are IP addresses
// only, and neither loopback, link-local nor multicast, nor an address of one of our own workloads or gateways.
//
// # Ending it
//
// Suspend lets nothing pass and forgets nothing; Resume ends that. A suspension by spec.suspend is ended in the file.
// The control planes go on exchanging roots meanwhile, and nothing else, so that a peer whose root is replaced is still
// known when it is resumed. Whoever doubts a peer's roots revokes it.
//
// Suspending and revoking take effect in memory first, are then written in one transaction, and are tried again until
// they are written (suspend.go).
//
// Revoke ends the trust for good: roots and catalogue are forgotten, live connections are cut, and a mark on the name
// stays that holds against files too. A MeshPeer in a file has no effect while its name is marked: not after a restart,
// not when the file is touched, changed, or taken away and put back; so that no stale copy of a repository brings a
// revoked peer back. The mark goes when the peer is invited or accepted anew under that name, which a MeshPeer of the
// name in a file forbids: it is taken out first. (Whoever peers by files only gives the newcomer another name.) Resume
// does not undo it. The peer is not told: it finds our gateways refusing it, its view of us goes stale and fails closed
// by itself.
package federation
