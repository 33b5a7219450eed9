// Package cgrouptest lets a test open sockets as Envoy does: from inside a control group.
package cgrouptest

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"isthmus.dev/isthmus/internal/node/cgroup"
)

var mu sync.Mutex // guards the group of this process

// Inside runs fn while this process is in the group with this name. What sockets the process opens meanwhile stay the
// group's.
func Inside(name string, fn func() error) (err error) {
	mu.Lock()
	defer mu.Unlock()
	home, err := ownPath()
	if err != nil {
		return err
	}
	g := cgroup.New(name)
	if err := g.Make(); err != nil {
		return err
	}
	defer g.Close()
	root := cgroup.New(home)
	if err := root.Make(); err != nil {
		return err
	}
	defer root.Close()
	if err := enter(g); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, enter(root)) }() // also when fn ends the test
	return fn()
}

// ownPath returns the path of this process's group below the root.
func ownPath() (string, error) {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		if path, ok := strings.CutPrefix(line, "0::/"); ok {
			return filepath.Join(".", strings.TrimSpace(path)), nil
		}
	}
	return "", errors.New("this process is in no control group of version 2")
}

func enter(g *cgroup.Group) error {
	path := filepath.Join("/proc/self/fd", strconv.Itoa(g.FD()), "cgroup.procs")
	return os.WriteFile(path, []byte(strconv.Itoa(os.Getpid())), 0)
}
