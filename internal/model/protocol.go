package model

import "strings"

// Protocol spoken on a port. The zero value is TCP: nothing is assumed of the bytes.
type Protocol int

// The protocols that make a difference.
const (
	TCP Protocol = iota
	HTTP
	HTTP2
	GRPC
	TLS
)

// IsHTTP says whether requests can be told apart.
func (p Protocol) IsHTTP() bool { return p == HTTP || p == HTTP2 || p == GRPC }

func (p Protocol) String() string { return [...]string{"TCP", "HTTP", "HTTP2", "GRPC", "TLS"}[p] }

// PortProtocol of a Service's port, as Istio selects it: appProtocol, else the name up to its first dash; anything else
// is TCP.
func PortProtocol(appProtocol *string, name string) Protocol {
	if appProtocol != nil {
		return ParseProtocol(*appProtocol)
	}
	prefix, _, _ := strings.Cut(name, "-")
	return ParseProtocol(prefix)
}

// ParseProtocol reads the words of Istio and of Kubernetes (KEP-3726).
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
