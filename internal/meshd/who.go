package meshd

import (
	"context"
	"net"
	"os"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/ca"
	"isthmus.dev/isthmus/internal/spiffe"
)

// callerID is who a connection's certificate says it is.
func callerID(ctx context.Context) (spiffe.ID, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return spiffe.ID{}, status.Error(codes.Unauthenticated, "no connection")
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return spiffe.ID{}, status.Error(codes.Unauthenticated, "a client certificate of this mesh is needed")
	}
	id, err := ca.PeerID(info.State)
	if err != nil {
		return spiffe.ID{}, status.Errorf(codes.Unauthenticated, "a client certificate of this mesh is needed: %v", err)
	}
	return id, nil
}

// callerNode is the node behind a connection.
func callerNode(ctx context.Context, td spiffe.TrustDomain) (string, error) {
	id, err := callerID(ctx)
	if err != nil {
		return "", err
	}
	name, ok := spiffe.NodeName(id)
	if !ok || id.TrustDomain() != td {
		return "", status.Errorf(codes.PermissionDenied, "%s is no node of this mesh", id)
	}
	return name, nil
}

// authorize decides by method who may call: anyone may try a join token, nodes the rest of the agent's service and
// discovery (checked again where they are served), administrators the administration.
func authorize(ctx context.Context, method string) error {
	switch {
	case method == "/"+agentapi.Service+"/Attest":
		return nil
	case !strings.HasPrefix(method, "/"+adminapi.Service+"/"):
		id, err := callerID(ctx)
		if err != nil {
			return err
		}
		if _, ok := spiffe.NodeName(id); !ok {
			return status.Errorf(codes.PermissionDenied, "%s is no node", id)
		}
		return nil
	}
	if p, ok := peer.FromContext(ctx); ok {
		if _, local := p.AuthInfo.(localPeer); local {
			return nil // the socket let in only its owner and root
		}
	}
	id, err := callerID(ctx)
	if err != nil {
		return err
	}
	if _, ok := spiffe.AdminName(id); !ok {
		return status.Errorf(codes.PermissionDenied, "%s is no administrator: make a certificate with 'isthmus admin cert' on the control plane's host", id)
	}
	return nil
}

func authorizeUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if err := authorize(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	return next(ctx, req)
}

func authorizeStream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if err := authorize(ss.Context(), info.FullMethod); err != nil {
		return err
	}
	return next(srv, ss)
}

// localPeer is the process at the other end of the Unix socket.
type localPeer struct {
	credentials.CommonAuthInfo
	UID, PID int
}

// AuthType names the kind of proof.
func (localPeer) AuthType() string { return "unix peer credentials" }

// peerCredentials are gRPC credentials for a Unix socket: the kernel says who connected (SO_PEERCRED, unix(7)).
type peerCredentials struct{}

// ServerHandshake lets in root and the user that the control plane runs as.
func (peerCredentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return nil, nil, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) { cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return nil, nil, err
	}
	if credErr != nil {
		return nil, nil, credErr
	}
	if uid := int(cred.Uid); uid != 0 && uid != os.Geteuid() {
		return nil, nil, status.Errorf(codes.PermissionDenied, "user %d may not use this socket", uid)
	}
	return conn, localPeer{CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}, UID: int(cred.Uid), PID: int(cred.Pid)}, nil
}

// ClientHandshake is not for servers.
func (peerCredentials) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, status.Error(codes.Unimplemented, "server side only")
}

// Info describes the protocol.
func (peerCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "unix"}
}

// Clone returns itself: there is no state.
func (c peerCredentials) Clone() credentials.TransportCredentials { return c }

// OverrideServerName means nothing here.
func (peerCredentials) OverrideServerName(string) error { return nil }
