package authz

import (
	"net/netip"
	"strings"
)

// Request is what is known of a request, or on a raw port of a connection. A zero field is not known.
type Request struct {
	Caller   Text // SPIFFE ID in the certificate; none without mutual TLS
	Asserted Text // SPIFFE ID of the caller that a gateway names in a header, whoever sends it
	Source   Address
	// Destination is the address and the port of the workload.
	Destination Address
	Port        uint16
	SNI         Text

	Method  Text
	Path    Text            // as the proxy passes it on, without the query
	Host    Text            // with the port, if it has one
	Headers map[string]Text // by name, lower case; lines of a name joined by ","
}

// header is what is known of one, also of those that begin with ":".
func (r *Request) header(name string) Text {
	switch name = strings.ToLower(name); name {
	case ":method":
		return r.Method
	case ":authority", "host":
		return r.Host
	}
	return r.Headers[name]
}

// Text is what is known of a text. The zero value is one of which nothing is known.
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

// Is is a text that is known. A caller or server name that is empty is None.
func Is(value string) Text { return Text{whole, value} }

// Begins is a text of which the beginning is known.
func Begins(value string) Text { return Text{beginning, value} }

// None is a text that is known not to be there.
func None() Text { return Text{known: absent} }

// Address is what is known of an IP address. The zero value is one of which nothing is known.
type Address struct {
	known bool
	addr  netip.Addr
}

// At is an address that is known.
func At(addr netip.Addr) Address { return Address{true, addr} }

// Nowhere is the address of a call that has none, since it was handed over inside a proxy.
func Nowhere() Address { return Address{known: true} }

func (a Address) in(p netip.Prefix) Truth {
	if !a.known {
		return Maybe
	}
	return truth(a.addr.IsValid() && p.Contains(a.addr))
}
