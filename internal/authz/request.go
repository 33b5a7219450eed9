package authz

import (
	"net/netip"
	"strings"
)

// Request is what is known of a request, or of a connection on a raw port. A zero field means unknown.
type Request struct {
	Caller   Text // SPIFFE ID in the certificate; None without mutual TLS
	Asserted Text // SPIFFE ID of the original caller in a gateway's header, whoever sends that header
	Source   Address
	// Destination is the workload's address; Port is its port.
	Destination Address
	Port        uint16
	SNI         Text

	Method  Text
	Path    Text            // as the proxy forwards it, without the query
	Host    Text            // with the port, if any
	Headers map[string]Text // by lower-case name; repeated headers are joined by ","
}

// header returns what is known of a header or pseudo-header.
func (r *Request) header(name string) Text {
	switch name = strings.ToLower(name); name {
	case ":method":
		return r.Method
	case ":authority", "host":
		return r.Host
	}
	return r.Headers[name]
}

// Text is what is known of a string. The zero value means that nothing is known.
type Text struct {
	known knowledge
	value string
}

type knowledge int

const (
	nothing knowledge = iota
	whole
	beginning
	absent
)

// Is returns a known text. An empty caller or server name is None.
func Is(value string) Text { return Text{whole, value} }

// Begins returns a text of which only the beginning is known.
func Begins(value string) Text { return Text{beginning, value} }

// None returns a text that is known to be absent.
func None() Text { return Text{known: absent} }

// Address is what is known of an IP address. The zero value means that nothing is known.
type Address struct {
	known bool
	addr  netip.Addr
}

// At returns a known address.
func At(addr netip.Addr) Address { return Address{true, addr} }

// Nowhere returns the address of a call that has none because it stayed inside a proxy.
func Nowhere() Address { return Address{known: true} }

func (a Address) in(p netip.Prefix) Truth {
	if !a.known {
		return Maybe
	}
	return truth(a.addr.IsValid() && p.Contains(a.addr))
}
