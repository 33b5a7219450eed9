//go:build e2e

package node

import (
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/sys/unix"
)

const nobody = 65534

// The sockets between the agent and Envoy hand out private keys and change what Envoy does: nobody but the agent's own
// user gets at them, whoever may pass through their folder to the workloads' sockets.
func TestPrivateSocketsAreForTheAgentsUser(t *testing.T) {
	p := newSPIFFEPair(t, "sockets") // whose folder lets others pass
	runAgent(t, p.cfg)
	eventually(t, 10*time.Second, "a call", p.call)
	var private []string
	must(t, filepath.WalkDir(p.cfg.RunDir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type() == fs.ModeSocket && filepath.Dir(path) == p.cfg.RunDir {
			private = append(private, e.Name())
		}
		return err
	}))
	if want := []string{"admin.sock", "agent.sock", "metrics.sock"}; !slices.Equal(private, want) {
		t.Errorf("the sockets are %v, want %v", private, want)
	}
	// of this test; an agent's run directory has none like it above
	must(t, os.Chmod(filepath.Dir(p.cfg.RunDir), 0o711))
	for _, name := range private {
		path := filepath.Join(p.cfg.RunDir, name)
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
		if _, err := dialAs(nobody, path); !errors.Is(err, os.ErrPermission) {
			t.Errorf("%s: another user connects: %v", name, err)
		}
	}
	// Even where the file lets it in, the kernel says who it is.
	for name, says := range map[string]string{
		"agent.sock":   http2.ClientPreface,
		"metrics.sock": "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		path := filepath.Join(p.cfg.RunDir, name)
		must(t, os.Chmod(path, 0o666))
		conn, err := dialAs(nobody, path)
		must(t, err)
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(5 * time.Second))
		_, _ = io.WriteString(conn, says)
		if answer, err := io.ReadAll(conn); len(answer) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: another user was answered %d bytes: %v", name, len(answer), err)
		}
	}
	eventually(t, 5*time.Second, "a call after all that", p.call)
}

// dialAs connects as another user. User IDs belong to threads, so one is used up for it.
func dialAs(uid int, path string) (conn net.Conn, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); errno != 0 {
			err = errno
			return
		}
		conn, err = net.Dial("unix", path)
	}()
	<-done
	return conn, err
}
