package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// lockDir holds one lock per name prefix while a lab exists.
const lockDir = "/run/isthmus"

// Config of a lab.
type Config struct {
	Prefix  string // of the names of the lock and of every namespace
	Dir     string // the lab's folder, created by Open and removed by Close
	Network Network
}

// Lab is a network with processes inside it.
type Lab struct {
	cfg  Config
	lock *os.File

	mu      sync.Mutex // guards the fields below
	record  record
	running []*Process // in order of their start
}

// Open locks the lab's names, removes the remains of an earlier run, which it returns, and builds the network. On
// failure it leaves nothing behind.
func Open(cfg Config) (lab *Lab, removed []string, err error) {
	lock, err := lockFile(filepath.Join(lockDir, cfg.Prefix+".lock"))
	if err != nil {
		return nil, nil, err
	}
	l := &Lab{cfg: cfg, lock: lock, record: record{Prefix: cfg.Prefix, Namespaces: cfg.Network.Namespaces()}}
	removed, err = l.sweep()
	if err != nil {
		return nil, removed, errors.Join(err, unlockFile(lock))
	}
	if err := l.build(); err != nil {
		return nil, removed, errors.Join(err, l.Close())
	}
	return l, removed, nil
}

// Clean removes the remains of a crashed run and returns what they were.
func Clean(cfg Config) (removed []string, err error) {
	lock, err := lockFile(filepath.Join(lockDir, cfg.Prefix+".lock"))
	if err != nil {
		return nil, err
	}
	l := &Lab{cfg: cfg, lock: lock, record: record{Prefix: cfg.Prefix, Namespaces: cfg.Network.Namespaces()}}
	removed, err = l.sweep()
	err = errors.Join(err, unlockFile(lock))
	_ = os.Remove(lockDir) // only if empty
	return removed, err
}

func (l *Lab) build() error {
	if err := os.MkdirAll(l.cfg.Dir, 0o700); err != nil {
		return fmt.Errorf("make the folder %s: %w", l.cfg.Dir, err)
	}
	if err := l.record.write(l.cfg.Dir); err != nil {
		return err
	}
	return l.cfg.Network.build()
}

// Dir returns the lab's folder.
func (l *Lab) Dir() string { return l.cfg.Dir }

// Close stops the processes, kills whatever else runs in the namespaces, and removes everything.
func (l *Lab) Close() error {
	l.mu.Lock()
	running := l.running
	l.running = nil
	l.mu.Unlock()
	for _, p := range running { // in parallel: some take their time
		p.signal(syscall.SIGTERM)
	}
	for i := len(running) - 1; i >= 0; i-- {
		running[i].Stop(5 * time.Second)
	}
	_, err := l.sweep()
	err = errors.Join(err, unlockFile(l.lock))
	_ = os.Remove(lockDir) // only if empty
	return err
}

// sweep kills recorded processes and others in the namespaces, and removes namespaces and folder.
func (l *Lab) sweep() (removed []string, err error) {
	old, err := l.left()
	if err != nil {
		return nil, err
	}
	victims := old.Processes
	names := existing(append(old.Namespaces, l.record.Namespaces...))
	for _, name := range names {
		in, err := processesIn(name)
		if err != nil {
			return nil, err
		}
		victims = append(victims, in...)
	}
	for _, p := range victims {
		if p.kill() {
			removed = append(removed, fmt.Sprintf("process %d (%s)", p.PID, p.Command))
		}
	}
	if err := gone(victims, 5*time.Second); err != nil {
		return removed, err
	}
	for _, name := range existing(names) {
		if err := deleteNetns(name); err != nil {
			return removed, err
		}
		removed = append(removed, "network namespace "+name)
	}
	if err := os.RemoveAll(l.cfg.Dir); err != nil {
		return removed, fmt.Errorf("remove %s: %w", l.cfg.Dir, err)
	}
	return removed, nil
}

// left reads the record of an earlier run, if any. It refuses a folder that no lab with this prefix made.
func (l *Lab) left() (record, error) {
	old, err := readRecord(l.cfg.Dir)
	switch {
	case err == nil && old.Prefix == l.cfg.Prefix:
		return old, nil
	case err == nil:
		return record{}, fmt.Errorf("%s belongs to a demo with other names (%s): choose another run directory",
			l.cfg.Dir, old.Prefix)
	case !errors.Is(err, os.ErrNotExist):
		return record{}, fmt.Errorf("%w: if no demo runs, remove %s and try again", err, l.cfg.Dir)
	}
	entries, err := os.ReadDir(l.cfg.Dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return record{}, fmt.Errorf("look into %s: %w", l.cfg.Dir, err)
	}
	if len(entries) > 0 {
		return record{}, fmt.Errorf("%s is not empty and was not made by this command: choose another run directory",
			l.cfg.Dir)
	}
	return record{}, nil
}

// gone waits until all processes have ended.
func gone(victims []process, limit time.Duration) error {
	deadline := time.Now().Add(limit)
	for _, p := range victims {
		for {
			now, err := identify(p.PID)
			if err != nil || now.Start != p.Start {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("process %d (%s) does not end: end it by hand and try again", p.PID, p.Command)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	return nil
}
