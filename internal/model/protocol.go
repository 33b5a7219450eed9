package model

import "strings"

// Protocol is spoken on a port. The zero value is TCP, an opaque byte stream.
type Protocol int

// The protocols that Isthmus tells apart.
const (
	TCP Protocol = iota
	HTTP
	HTTP2
	GRPC
	TLS
)

// IsHTTP reports whether a proxy can see single requests.
func (p Protocol) IsHTTP() bool { return p == HTTP || p == HTTP2 || p == GRPC }

func (p Protocol) String() string { return [...]string{"TCP", "HTTP", "HTTP2", "GRPC", "TLS"}[p] }

// PortProtocol selects the protocol of a Service's port as Istio does: appProtocol, else the port's name up to its
// first dash, else TCP.
func PortProtocol(appProtocol *string, name string) Protocol {
	if appProtocol != nil {
		return ParseProtocol(*appProtocol)
	}
	prefix, _, _ := strings.Cut(name, "-")
	return ParseProtocol(prefix)
}

// ParseProtocol parses a protocol name of Istio or Kubernetes (KEP-3726). Unknown names are TCP.
func ParseProtocol(s string) Protocol {
	switch strings.ToLower(s) {
	case "http", "http1", "http/1.1", "kubernetes.io/ws":
		return HTTP
	case "http2", "h2c", "kubernetes.io/h2c":
		return HTTP2
	case "grpc", "grpc-web":
		return GRPC
	case "https", "tls", "kubernetes.io/wss":
		return TLS
	}
	return TCP
}
