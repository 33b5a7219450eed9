// Package cgroup makes control groups (version 2), by which the kernel tells one program's sockets from all others: a
// socket keeps the group of the process that opened it, and only root on the host can put a process into a group. The
// group limits nothing.
package cgroup

import (
	"errors"
	"fmt"
	"os"
	"regexp"

	"golang.org/x/sys/unix"
)

// Group is a control group right below the root.
type Group struct {
	ID    ID
	name  string
	dir   *os.File
	mount *os.File
}

// ID identifies a group uniquely, also among groups that had the same name.
type ID struct {
	Level  uint32 // below the root
	Number uint64
}

// New names a group; Make makes it.
func New(name string) *Group { return &Group{name: name} }

// Make makes the group, or opens an existing one. It mounts the hierarchy privately, so that it does not matter where,
// or whether, the host has it mounted.
func (g *Group) Make() (err error) {
	if err := visible(); err != nil {
		return err
	}
	if g.mount, err = hierarchy(); err != nil {
		return fmt.Errorf("reach the control groups, by which Envoy's sockets are known: "+
			"the kernel needs version 2 of them (5.7 or later), and the agent CAP_SYS_ADMIN: %w", err)
	}
	defer func() {
		if err != nil {
			g.Close()
		}
	}()
	for range tries {
		if err = g.open(); !errors.Is(err, errSwept) {
			break
		}
	}
	return err
}

// errSwept means that another agent removed the group as abandoned before we had locked it.
var errSwept = errors.New("another agent is removing it")

const tries = 10

// open makes or opens the group, and holds a lock on it until Close, which shows that it has an owner.
func (g *Group) open() error {
	if err := unix.Mkdirat(int(g.mount.Fd()), g.name, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("make control group %s: %w", g.name, err)
	}
	dir, err := openDir(g.mount, g.name)
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("make control group %s: %w", g.name, errSwept)
	}
	if err != nil {
		return fmt.Errorf("open control group %s: %w", g.name, err)
	}
	var held, named unix.Stat_t
	err = errors.Join(unix.Flock(int(dir.Fd()), unix.LOCK_SH), unix.Fstat(int(dir.Fd()), &held))
	if err != nil {
		dir.Close()
		return fmt.Errorf("lock control group %s: %w", g.name, err)
	}
	if unix.Fstatat(int(g.mount.Fd()), g.name, &named, 0) != nil || named.Ino != held.Ino {
		dir.Close()
		return fmt.Errorf("make control group %s: %w", g.name, errSwept)
	}
	g.dir, g.ID = dir, ID{Level: 1, Number: held.Ino}
	return nil
}

func openDir(mount *os.File, name string) (*os.File, error) {
	fd, err := unix.Openat(int(mount.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// Sweep removes abandoned groups of similar names: those without processes whose maker was killed.
func (g *Group) Sweep(alike *regexp.Regexp) error {
	root, err := openDir(g.mount, ".")
	if err != nil {
		return fmt.Errorf("look for old control groups: %w", err)
	}
	defer root.Close()
	names, err := root.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("look for old control groups: %w", err)
	}
	var errs []error
	for _, name := range names {
		if name != g.name && alike.MatchString(name) {
			errs = append(errs, sweep(g.mount, name))
		}
	}
	return errors.Join(errs...)
}

func sweep(mount *os.File, name string) error {
	dir, err := openDir(mount, name)
	if err != nil {
		return nil // it is gone, or no group
	}
	defer dir.Close()
	if unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return nil // it has an owner
	}
	return remove(mount, name)
}

// initial is the number of the host's control group namespace (PROC_CGROUP_INIT_INO).
const initial = 0xEFFFFFFB

// visible makes sure that the kernel counts the levels of groups from where this process sees their root.
func visible() error {
	var own unix.Stat_t
	var kernel unix.Utsname
	if err := errors.Join(unix.Stat("/proc/self/ns/cgroup", &own), unix.Uname(&kernel)); err != nil {
		return fmt.Errorf("look at the control group namespace: %w", err)
	}
	return countable(own.Ino == initial, unix.ByteSliceToString(kernel.Release[:]))
}

func countable(host bool, release string) error {
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); host || err != nil || major > 6 || major == 6 &&
		minor >= 11 {
		return nil
	}
	return fmt.Errorf("this process has a control group namespace of its own, in which Linux before 6.11 (this is "+
		"%s) does not know Envoy's sockets: "+
		"start the agent's container in the host's (docker run --cgroupns=host, podman run --cgroupns=host)", release)
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

// FD returns the group's directory, for a process to be started in it.
func (g *Group) FD() int { return int(g.dir.Fd()) }

// Remove removes the group, unless a process is in it.
func (g *Group) Remove() error {
	return remove(g.mount, g.name)
}

func remove(mount *os.File, name string) error {
	err := unix.Unlinkat(int(mount.Fd()), name, unix.AT_REMOVEDIR)
	if err != nil && !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove control group %s: %w", name, err)
	}
	return nil
}

// Close releases the group without removing it.
func (g *Group) Close() {
	if g.dir != nil {
		g.dir.Close()
	}
	g.mount.Close()
}
