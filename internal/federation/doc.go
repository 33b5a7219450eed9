// Package federation implements the control plane's side of peering: invitations and their acceptance, the exchange of
// SPIFFE bundles, catalogues and readiness, and the health of each peer. It generates no Envoy configuration; that
// follows from the snapshot.
//
// # Establishing a peering
//
// Invite opens an invitation for one named peer and returns a token. The token holds the addresses and identities of
// our gateways, the fingerprints of our root and of our mesh (peerrules.MeshFingerprint), and a one-time secret.
//
// Accept runs at the other mesh:
//  1. It reaches our gateway through its own gateway ("bootstrap.<id>").
//  2. It makes a TLS connection with the server name "<invite id>.invite.fed.<trust domain>" and requires the identity
//     of a gateway in the token.
//  3. Inside, it makes a TLS connection to our control plane and requires spiffe://<trust domain>/isthmus/control
//     under the pinned root. Its own certificate proves that it is the control plane of the mesh that it introduces.
//  4. Only there it sends the secret, with its own roots, gateway addresses and gateway identities.
//  5. Our answer must match the mesh fingerprint in the token.
//
// Each side stores a MeshPeer and the other's roots. The invitation is one side's consent, the acceptance the other's.
// Both sides display the same two fingerprints.
//
// An invitation works once; of concurrent acceptances one wins. The winner may repeat the identical request (same
// nonce, same content) until the invitation would have expired, so that a lost answer does no harm. Anything else is
// refused. The invitation's ID is visible in the SNI and is no secret. It is useless by itself.
//
// Gateways that are added later are not announced. A peer knows the gateways of the first exchange until a new peering
// or an edit of its MeshPeer. A new gateway may share the service account of an old one; then only its address is
// missing.
//
// # Keeping up with peers
//
// Run fetches every peer's roots from its bundle endpoint, through both gateways with the name "control.<peer>", and
// pushes our catalogue and readiness. Each exchange makes a new connection, so that a success proves the whole path. A
// bundle is the complete set of roots. Its sequence never goes back. It holds only certificate authorities, and no root
// of ours or of another peer: a key that vouches for two trust domains could impersonate either.
//
// All of this runs over TLS between the two control planes. Gateways carry it inside their own TLS connections and can
// neither read nor modify it (channel.go), so a stolen gateway has no influence. Catalogues, bundles and notices are
// accepted only from the peer's control plane, identified on every request by its roots and exact identity. The header
// "isthmus-peer" of our own gateway is trusted only for probes.
//
// Catalogues and bundles are ordered by numbers that are times. A number in the future is refused, so that nobody can
// use up the numbers.
//
// Data from a peer is bounded in size, count and shape. It only ever becomes an entry of that peer's catalogue or that
// peer's roots; it creates no host, namespace or address. Gateway addresses in a peering must be IP addresses, and
// neither loopback, link-local, multicast nor an address of one of our own workloads or gateways.
//
// # Ending a peering
//
// Suspend blocks all traffic but keeps all data. Resume ends a suspension by command; spec.suspend is ended in the
// file. The control planes continue to exchange roots, and nothing else, so that a peer whose root rotates can be
// resumed. An administrator who distrusts a peer's roots must revoke it.
//
// Suspensions and revocations take effect in memory first. They are then written in one transaction, which is retried
// until it succeeds (suspend.go).
//
// Revoke ends the trust for good. Roots and catalogue are deleted and open connections closed. The name stays marked as
// revoked. A MeshPeer in a file with that name has no effect, even after a restart or an edit, so that a stale copy of
// a repository cannot bring a revoked peer back. Inviting or accepting a peer anew under that name removes the mark,
// provided that no file contains a MeshPeer of that name. (A mesh that peers only by files uses another name.) Resume
// does not undo a revocation. The peer is not notified: our gateways refuse it, its copy of our roots becomes stale,
// and it fails closed.
package federation
