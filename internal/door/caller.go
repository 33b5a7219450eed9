package door

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/netip"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/internal/ca"
	"isthmus.dev/isthmus/internal/kind"
	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/state"
)

// Kind is what a caller has authenticated as. Kinds combine into sets with the operator |.
type Kind uint8

// The kinds of callers. The zero Kind is nobody: a certificate that has no meaning here.
const (
	Stranger      Kind = 1 << iota // without a certificate
	Workload                       // a workload or gateway Envoy of this mesh
	Peer                           // the control plane of a peer mesh
	PeerGateway                    // a gateway of a peer mesh, as reported by this mesh's own gateway
	Node                           // the agent of a node or gateway
	Administrator                  // with a certificate
	Local                          // a user of this host, over the Unix socket

	Anybody = Stranger | Workload | Peer | PeerGateway | Node | Administrator | Local
)

// Caller is the other end of a connection, as authenticated by the handshake or the kernel.
type Caller struct {
	Kind Kind
	Name string     // of the node, administrator, peer or user; "<namespace>/<service account>" for a workload
	ID   spiffe.ID  // of a caller with a certificate
	Addr netip.Addr // the caller's address; unset for a Local
	At   netip.Addr // the local address of the connection; unset for a Local
	// Certificate is nil for a Local and a Stranger.
	Certificate *Certificate
	// UID and PID of a Local, from the kernel.
	UID, PID int
}

// Certificate is the part of a verified client certificate that later checks need.
type Certificate struct {
	Serial     string // hex
	Generation string // see ca.Generation
	NotAfter   time.Time
	Chains     [][]*x509.Certificate
}

// Actor returns the name of the caller in the event log.
func (c Caller) Actor() string {
	switch c.Kind {
	case Local:
		return fmt.Sprintf("user %s (uid %d)", c.Name, c.UID)
	case Administrator:
		return "administrator " + c.Name
	case Node:
		return kind.Node(c.Name).String()
	case Workload:
		return "workload " + c.Name
	case Peer, PeerGateway:
		return "peer " + c.Name
	case Stranger:
		return state.Stranger
	default:
		return "unknown " + c.ID.String()
	}
}

// From describes where the caller is.
func (c Caller) From() string {
	if c.Kind == Local {
		return "local socket"
	}
	return c.Addr.String()
}

// Proof describes how the caller authenticated, so that it can be looked up.
func (c Caller) Proof() string {
	switch {
	case c.Kind == Local:
		return fmt.Sprintf("pid %d", c.PID)
	case c.Certificate == nil:
		return ""
	}
	return "certificate " + c.Certificate.Serial
}

// Net returns the address by which the caller is counted. For IPv6 that is the network, since one host can use all of
// its addresses.
func (c Caller) Net() netip.Addr { return network(c.Addr) }

func network(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return a
}

// key identifies the caller for its share of the limits.
func (c Caller) key() string {
	if c.Kind == Stranger {
		return c.Net().String()
	}
	return c.Actor()
}

// Identify returns the caller of a completed TLS handshake. The TLS server has already verified the certificate.
func Identify(from netip.Addr, s tls.ConnectionState) (Caller, error) {
	c := Caller{Kind: Stranger, Addr: from}
	if len(s.PeerCertificates) == 0 {
		return c, nil
	}
	var err error
	if c.ID, err = ca.PeerID(s); err != nil {
		return Caller{}, err
	}
	leaf := s.VerifiedChains[0][0]
	c.Certificate = &Certificate{
		Serial: fmt.Sprintf("%x", leaf.SerialNumber), Generation: ca.Generation(leaf), NotAfter: leaf.NotAfter,
		Chains: s.VerifiedChains,
	}
	c.Kind = 0
	if name, ok := spiffe.NodeName(c.ID); ok {
		c.Kind, c.Name = Node, name
	} else if name, ok := spiffe.AdminName(c.ID); ok {
		c.Kind, c.Name = Administrator, name
	} else if ns, sa, ok := spiffe.WorkloadParts(c.ID); ok {
		c.Kind, c.Name = Workload, ns+"/"+sa
	}
	return c, nil
}

type callerKey struct{}

// With returns a context that carries the caller.
func With(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// Of returns the caller of a gRPC call. It returns an error if the call did not pass the door; do not assume any caller
// then.
func Of(ctx context.Context) (Caller, error) {
	c, ok := ctx.Value(callerKey{}).(Caller)
	if !ok {
		return Caller{}, status.Error(codes.Internal, "the call did not come through the door")
	}
	return c, nil
}
