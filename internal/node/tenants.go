package node

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"isthmus.dev/isthmus/internal/node/netns"
)

// place identifies a network namespace while it is held.
type place struct{ dev, inode uint64 }

// tenants records which workload occupies which namespace. Two workloads in one namespace could not be told apart, nor
// could the host and a workload in the host's namespace.
type tenants struct {
	mu sync.Mutex // guards by
	by map[place]string
}

func newTenants() *tenants { return &tenants{by: map[place]string{}} }

// enter gives a workload a namespace that no workload occupies.
func (t *tenants) enter(p place, workload string) error {
	own, err := placeOf(netns.OwnPath)
	if err != nil {
		return err
	}
	if p == own {
		return errors.New("its network namespace is the agent's own, which is the host's: give it one of its own")
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if other := t.by[p]; other != "" {
		return fmt.Errorf("workload %s lives in its network namespace already, under another path: give every "+
			"workload one of its own", other)
	}
	t.by[p] = workload
	return nil
}

// leave undoes enter.
func (t *tenants) leave(p place, workload string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.by[p] == workload {
		delete(t.by, p)
	}
}

func placeOf(path string) (place, error) {
	f, err := netns.Open(path)
	if err != nil {
		return place{}, err
	}
	defer f.Close()
	return placeOfFile(f)
}

func placeOfFile(f *os.File) (place, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return place{}, fmt.Errorf("stat %s: %w", f.Name(), err)
	}
	return place{uint64(st.Dev), st.Ino}, nil
}
