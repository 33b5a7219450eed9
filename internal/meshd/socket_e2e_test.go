//go:build e2e

package meshd

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/sys/unix"
)

const nobody = 65534

// The socket of the administration is for root and its owner. This test must run as root: it becomes somebody else.
func TestSocketIsForItsOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("run this as root")
	}
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML})
	if info, err := os.Stat(p.cfg.Socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v, %v", info, err)
	}
	must(t, os.Chmod(filepath.Dir(p.cfg.Socket), 0o755))
	_, err := dialAs(nobody, p.cfg.Socket)
	if !errors.Is(err, os.ErrPermission) {
		t.Errorf("another user connects: %v", err)
	}
	// Even where the file lets it in, the kernel says who it is.
	must(t, os.Chmod(p.cfg.Socket, 0o666))
	conn, err := dialAs(nobody, p.cfg.Socket)
	must(t, err)
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	_, _ = io.WriteString(conn, http2.ClientPreface)
	if answer, err := io.ReadAll(conn); len(answer) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("another user was answered %d bytes: %v", len(answer), err)
	}
	p.status() // and root still is
}

// dialAs connects as another user. User IDs belong to threads, so one is used up for it.
func dialAs(uid int, path string) (net.Conn, error) {
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); errno != 0 {
			done <- result{nil, errno}
			return
		}
		conn, err := net.Dial("unix", path)
		done <- result{conn, err}
	}()
	r := <-done
	return r.conn, r.err
}
