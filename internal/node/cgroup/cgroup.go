// Package cgroup makes control groups (version 2), by which the kernel tells the sockets of one program from those of every
// other: a socket keeps the group of the process that opened it, and only who may write to the group's directory, root on the
// host, can put a process into it. Nothing is limited by the group.
package cgroup

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Group is a control group right below the root.
type Group struct {
	ID    ID
	name  string
	dir   *os.File
	mount *os.File
}

// ID tells a group from every other, also from one that had its name before.
type ID struct {
	Level  uint32 // below the root
	Number uint64
}

// New names a group; Make makes it.
func New(name string) *Group { return &Group{name: name} }

// Make makes the group, or opens the one that is there. The hierarchy is reached by a mount of its own, which nobody else
// sees, so that it does not matter where, or whether, the host has it mounted.
func (g *Group) Make() (err error) {
	if g.mount, err = hierarchy(); err != nil {
		return fmt.Errorf("reach the control groups, by which Envoy's sockets are known: "+
			"the kernel needs version 2 of them (5.7 or later), and the agent CAP_SYS_ADMIN: %w", err)
	}
	defer func() {
		if err != nil {
			g.Close()
		}
	}()
	if err := unix.Mkdirat(int(g.mount.Fd()), g.name, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("make control group %s: %w", g.name, err)
	}
	fd, err := unix.Openat(int(g.mount.Fd()), g.name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open control group %s: %w", g.name, err)
	}
	g.dir = os.NewFile(uintptr(fd), g.name)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("stat control group %s: %w", g.name, err)
	}
	g.ID = ID{Level: 1, Number: st.Ino}
	return nil
}

func hierarchy() (*os.File, error) {
	fs, err := unix.Fsopen("cgroup2", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, err
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "cgroup2"), nil
}

// FD is the group's directory, for a process to be started in it.
func (g *Group) FD() int { return int(g.dir.Fd()) }

// Remove removes the group, unless a process is in it.
func (g *Group) Remove() error {
	err := unix.Unlinkat(int(g.mount.Fd()), g.name, unix.AT_REMOVEDIR)
	if err != nil && !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove control group %s: %w", g.name, err)
	}
	return nil
}

// Close forgets the group, which stays.
func (g *Group) Close() {
	if g.dir != nil {
		g.dir.Close()
	}
	g.mount.Close()
}
