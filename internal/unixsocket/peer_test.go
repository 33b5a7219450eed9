package unixsocket_test

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"isthmus.dev/isthmus/internal/unixsocket"
)

// TestPeer: the kernel names the process that connected.
func TestPeer(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	who, err := unixsocket.Peer(conn.(*net.UnixConn))
	if err != nil || int(who.Pid) != os.Getpid() || int(who.Uid) != os.Geteuid() || int(who.Gid) != os.Getegid() {
		t.Errorf("%+v, %v", who, err)
	}
	conn.Close()
	if _, err := unixsocket.Peer(conn.(*net.UnixConn)); err == nil {
		t.Error("a closed connection has a peer")
	}
}
