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

// Kind is what a caller has proved to be. A set of kinds is their sum.
type Kind uint8

// Kinds of callers. The zero Kind is nobody: who showed a certificate that stands for nothing here.
const (
	Stranger      Kind = 1 << iota // who showed no certificate
	Workload                       // a workload or gateway Envoy of this mesh
	Peer                           // the control plane of a peer mesh
	PeerGateway                    // a gateway of a peer mesh, as this mesh's own gateway says
	Node                           // the agent of a node or gateway
	Administrator                  // by certificate
	Local                          // a user of this host, by the socket

	Anybody = Stranger | Workload | Peer | PeerGateway | Node | Administrator | Local
)

// Caller is who is at the other end of a connection, as its handshake or the kernel proved it.
type Caller struct {
	Kind Kind
	Name string     // of the node, administrator, peer or user; "<namespace>/<service account>" of a workload
	ID   spiffe.ID  // of who showed a certificate
	Addr netip.Addr // where the connection comes from; only a Local has none
	At   netip.Addr // the address of ours that it was made to, as the kernel says; only a Local has none
	// Certificate is what it showed; nil for a Local and for a Stranger.
	Certificate *Certificate
	// UID and PID are a Local's, from the kernel.
	UID, PID int
}

// Certificate is what there is to judge of a certificate that was verified when it was shown.
type Certificate struct {
	Serial     string // hex
	Generation string // see ca.Generation
	NotAfter   time.Time
	Chains     [][]*x509.Certificate
}

// Actor names the caller among the events.
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

// From says where the caller is.
func (c Caller) From() string {
	if c.Kind == Local {
		return "local socket"
	}
	return c.Addr.String()
}

// Proof returns what can be looked up about how the caller proved who it is.
func (c Caller) Proof() string {
	switch {
	case c.Kind == Local:
		return fmt.Sprintf("pid %d", c.PID)
	case c.Certificate == nil:
		return ""
	}
	return "certificate " + c.Certificate.Serial
}

// Net returns the caller's address as it counts: for IPv6 the network, of which one host has all addresses.
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

// key tells callers apart whose shares are counted.
func (c Caller) key() string {
	if c.Kind == Stranger {
		return c.Net().String()
	}
	return c.Actor()
}

// Identify returns whom a finished TLS handshake proved, whose server verified what certificate was shown.
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

// With puts a caller into a context.
func With(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// Of returns the caller of a gRPC call, or an error when it did not come through the door: nobody may be assumed then.
func Of(ctx context.Context) (Caller, error) {
	c, ok := ctx.Value(callerKey{}).(Caller)
	if !ok {
		return Caller{}, status.Error(codes.Internal, "the call did not come through the door")
	}
	return c, nil
}
