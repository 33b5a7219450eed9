package door

import (
	"context"
	"crypto/tls"
	"errors"
	"net"

	"google.golang.org/grpc/credentials"
)

// Credentials are gRPC credentials for connections of a Listener, whose handshake is already complete.
type Credentials struct{}

// authInfo carries the caller from the connection to its calls.
type authInfo struct {
	credentials.CommonAuthInfo
	caller Caller
}

// AuthType implements credentials.AuthInfo.
func (authInfo) AuthType() string { return "isthmus door" }

// ServerHandshake looks up the caller of the connection.
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

// ClientHandshake always fails: the credentials are for servers.
func (Credentials) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("this side only serves")
}

// Info implements credentials.TransportCredentials.
func (Credentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "isthmus door"}
}

// Clone returns c, which has no state.
func (c Credentials) Clone() credentials.TransportCredentials { return c }

// OverrideServerName has no effect.
func (Credentials) OverrideServerName(string) error { return nil }
