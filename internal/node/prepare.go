package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// prepare checks the host, makes the agent's directories and locks them against a second agent.
func (a *Agent) prepare() (unlock func(), err error) {
	if err := a.checkPrivileges(); err != nil {
		return nil, err
	}
	for _, dir := range []string{a.cfg.RunDir, a.cfg.StateDir, filepath.Join(a.cfg.RunDir, aliases)} {
		if err := privateDir(dir); err != nil {
			return nil, err
		}
	}
	return lock(filepath.Join(a.cfg.RunDir, "agent.lock"))
}

// checkPrivileges returns an error that names a missing privilege. A gateway needs none beyond its sockets.
func (a *Agent) checkPrivileges() error {
	if a.cfg.Gateway != nil {
		return nil
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("ask for the process's capabilities: %w", err)
	}
	for _, need := range []struct {
		bit  uint
		name string
	}{{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN"}, {unix.CAP_SYS_ADMIN, "CAP_SYS_ADMIN"}} {
		if data[need.bit/32].Effective&(1<<(need.bit%32)) == 0 {
			return fmt.Errorf("a node agent needs %s to enter the workloads' network namespaces and to capture their traffic: run it as root, for example with sudo", need.name)
		}
	}
	return nil
}

// privateDir makes a directory that only this user can enter, or makes sure that it is one.
func privateDir(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return fmt.Errorf("make %s: %w", filepath.Dir(dir), err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make %s: %w", dir, err)
	}
	st, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("stat %s: %w", dir, err)
	}
	if !st.IsDir() {
		return fmt.Errorf("%s is not a directory: remove it, or choose another runDir and stateDir", dir)
	}
	var raw unix.Stat_t
	if err := unix.Lstat(dir, &raw); err != nil {
		return fmt.Errorf("stat %s: %w", dir, err)
	}
	if int(raw.Uid) != os.Geteuid() {
		return fmt.Errorf("%s belongs to another user (uid %d): remove it, or choose another runDir and stateDir",
			dir, raw.Uid)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return fmt.Errorf("close %s to others: %w", dir, err)
	}
	return nil
}

// lock keeps a second agent out of the same run directory.
func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the run directory: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		f.Close()
		return nil, fmt.Errorf("another agent runs in %s: stop it, or give this one another name or runDir",
			filepath.Dir(path))
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock the run directory: %w", err)
	}
	return func() { f.Close() }, nil
}
