package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// lockFile holds a lock for the lifetime of this process. The error for a second process says who holds it.
func lockFile(path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make %s: %w", filepath.Dir(path), err)
	}
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return nil, fmt.Errorf("open the lock: %w", err)
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			holder, _ := os.ReadFile(path)
			f.Close()
			if errors.Is(err, unix.EWOULDBLOCK) {
				return nil, BusyError{PID: strings.TrimSpace(string(holder))}
			}
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if !same(f, path) { // the last holder removed it meanwhile
			f.Close()
			continue
		}
		if err := f.Truncate(0); err != nil {
			return nil, errors.Join(fmt.Errorf("write %s: %w", path, err), f.Close())
		}
		if _, err := fmt.Fprintln(f, os.Getpid()); err != nil {
			return nil, errors.Join(fmt.Errorf("write %s: %w", path, err), f.Close())
		}
		return f, nil
	}
}

// unlockFile removes the lock file and then releases the lock.
func unlockFile(f *os.File) error {
	return errors.Join(os.Remove(f.Name()), f.Close())
}

func same(f *os.File, path string) bool {
	ours, err := f.Stat()
	if err != nil {
		return false
	}
	theirs, err := os.Stat(path)
	return err == nil && os.SameFile(ours, theirs)
}

// BusyError means that a live process uses the same names.
type BusyError struct{ PID string }

func (e BusyError) Error() string {
	return fmt.Sprintf("another demo is running (process %s): end it with Ctrl-C in its terminal, or `kill %s`, and try again", e.PID, e.PID)
}
