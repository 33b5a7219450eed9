package workloadapi

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// MaxPath is how long the address of a Unix socket may be.
const MaxPath = 107

// listenAt opens a socket that everybody may connect to: who is served is decided by who connects.
func listenAt(path string) (*net.UnixListener, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the folder of the socket: %w", err)
	}
	if err := onlyOurs(dir); err != nil {
		return nil, err
	}
	if err := makeRoom(path); err != nil {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on a Unix socket: %w", err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		l.Close()
		return nil, fmt.Errorf("open the socket to the workload: %w", err)
	}
	return l, nil
}

// makeRoom removes a socket that an agent left behind, and nothing else.
func makeRoom(path string) error {
	st, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("stat %s: %w", path, err)
	}
	if st.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s is there and is no socket: remove it, or choose another workloadSocket.path", path)
	}
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		return fmt.Errorf("something serves at %s already: stop it, or choose another workloadSocket.path", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove an old socket: %w", err)
	}
	return nil
}

// onlyOurs refuses a folder in which others could put a socket of their own in place of the workload's.
func onlyOurs(dir string) error {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return fmt.Errorf("follow %s: %w", dir, err)
	}
	for ; ; real = filepath.Dir(real) {
		var st unix.Stat_t
		if err := unix.Lstat(real, &st); err != nil {
			return fmt.Errorf("stat %s: %w", real, err)
		}
		others := st.Mode&0o022 != 0 && st.Mode&unix.S_ISVTX == 0
		if others || st.Uid != 0 && int(st.Uid) != os.Geteuid() {
			return fmt.Errorf("%s can be written by others (user %d, mode %#o): they could put a socket of their own into the workload's place; choose a workloadSocket.path below folders of root alone",
				real, st.Uid, st.Mode&0o7777)
		}
		if real == filepath.Dir(real) {
			return nil
		}
	}
}

// removeLeftovers makes the folder of sockets, and removes those of workloads that are here no more. Folders stay: a
// container may have them mounted.
func (s *Server) removeLeftovers() error {
	wanted := make([]string, 0, len(s.served))
	for _, w := range s.served {
		wanted = append(wanted, w.Path)
	}
	old, err := filepath.Glob(filepath.Join(s.cfg.Folder, "*", "*.sock"))
	if err != nil {
		return fmt.Errorf("look for old sockets: %w", err)
	}
	for _, path := range old {
		if slices.Contains(wanted, path) {
			continue
		}
		if err := makeRoom(path); err != nil {
			return err
		}
	}
	return nil
}
