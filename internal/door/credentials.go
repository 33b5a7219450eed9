package door

import (
	"context"
	"crypto/tls"
	"errors"
	"net"

	"google.golang.org/grpc/credentials"
)

// Credentials are gRPC credentials for connections of a Listener: their handshake is over.
type Credentials struct{}

// authInfo carries the caller from the connection to its calls.
type authInfo struct {
	credentials.CommonAuthInfo
	caller Caller
}

// AuthType names the kind of proof.
func (authInfo) AuthType() string { return "isthmus door" }

// ServerHandshake finds out whom the connection is from.
func (Credentials) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	caller, ok := callerOf(c)
	if !ok {
		return nil, nil, errors.New("the connection did not come through the door")
	}
	if t, ok := c.(*tls.Conn); ok && t.ConnectionState().NegotiatedProtocol != "h2" {
		return nil, nil, errors.New("the client does not speak HTTP/2 (ALPN h2)")
	}
	return c, authInfo{credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}, caller}, nil
}

// ClientHandshake is not for servers.
func (Credentials) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("this side only serves")
}

// Info describes the protocol.
func (Credentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "isthmus door"}
}

// Clone returns itself: there is no state.
func (c Credentials) Clone() credentials.TransportCredentials { return c }

// OverrideServerName means nothing here.
func (Credentials) OverrideServerName(string) error { return nil }
