// Package federation is the control plane's side of peering: invitations and their acceptance, the exchange of SPIFFE bundles,
// the catalogues, and what is known of each peer's health. It makes no Envoy configuration; that follows from the snapshot.
//
// # Becoming peers
//
// Invite opens an invitation for one named peer and returns a token: where our gateways are, the fingerprint of our root, a
// one-use secret. Accept, at the other mesh, reaches our gateway through its own ("bootstrap.<id>"), speaks TLS to the name
// "<invite id>.invite.fed.<trust domain>", refuses any chain that does not end in the root of that fingerprint, and only
// then shows the secret together with its own roots, gateway addresses and gateway identities. Each side keeps a MeshPeer and
// the other's roots. The invitation is one side's consent and the acceptance the other's; both sides can show both fingerprints.
//
// An invitation serves once: of many acceptances at a time one wins. The winner may repeat the very same request (same nonce,
// same content) while the invitation would still be open, so that a lost answer loses nothing; anything else is refused.
// Five wrong secrets close it. Its id is no secret (it stands in the SNI), so an observer on the path can close an
// invitation, and gains nothing else by it.
//
// # Being peers
//
// Run asks every peer's bundle endpoint for its roots, through both gateways under the name "control.<peer>", and pushes our
// catalogue. Each exchange is a handshake of its own, so that success proves the whole path. A bundle is the whole set of
// roots; its sequence never goes back; it holds only certificate authorities; none of them may be a root of ours or of another
// peer, for a key that vouches for two trust domains makes each of them able to pose as the other.
//
// The peering server trusts two headers, "isthmus-peer" and "isthmus-invite", because only this mesh's gateways can reach it
// (the Gateway check of Config) and a gateway overwrites them per filter chain, that is per authenticated peer and SNI. So peer
// A cannot post as peer B: to be let into B's chain it would need a certificate of B's gateway. A request with both headers,
// or with either one twice, is refused.
//
// What a peer sends is bounded in size, count and shape, and becomes nothing but an entry of its own catalogue or its own
// roots: it creates no host, no namespace, no address. Gateway addresses that arrive by peering are IP addresses only, and
// neither loopback, link-local nor multicast, nor an address of one of our own workloads or gateways.
//
// # Ending it
//
// Suspend refuses everything with a peer and forgets nothing; Resume ends that. A suspension by spec.suspend is ended in the file.
//
// Revoke ends the trust for good: roots and catalogue are forgotten, live connections are cut, and a mark on the name stays
// that holds against files too. A MeshPeer in a file has no effect while its name is marked: not after a restart, not when the
// file is touched, changed, or taken away and put back; so that no stale copy of a repository brings a revoked peer back. The
// mark goes when the peer is invited or accepted anew under that name, which a MeshPeer of the name in a file forbids: it is
// taken out first. (Whoever peers by files only gives the newcomer another name.) Resume does not undo it. The peer is not
// told: it finds our gateways refusing it, its view of us goes stale and fails closed by itself.
package federation
