package statetest

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// memory is an in-memory file system, if there is one.
const memory = "/dev/shm"

// Dir returns a folder for state files that is removed with the test. It is in memory if possible, since a busy disk
// makes every write slow.
func Dir(t testing.TB) string {
	t.Helper()
	sweepOnce()
	dir, err := os.MkdirTemp(memory, "isthmus-tests-")
	if err != nil {
		return t.TempDir()
	}
	unlock, err := lock(dir, unix.LOCK_SH)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		os.RemoveAll(dir)
		unlock()
	})
	return dir
}

var sweepOnce = sync.OnceFunc(func() { sweep(memory, time.Now()) })

// sweep removes the folders of killed tests, whose locks nobody holds. tools/scratch.sh does the same.
func sweep(base string, now time.Time) {
	dirs, _ := filepath.Glob(filepath.Join(base, "isthmus-tests-*"))
	for _, dir := range dirs {
		info, err := os.Stat(dir)
		if err != nil || now.Sub(info.ModTime()) < time.Minute { // a new one may not be locked yet
			continue
		}
		if unlock, err := lock(dir, unix.LOCK_EX|unix.LOCK_NB); err == nil {
			os.RemoveAll(dir)
			unlock()
		}
	}
}

// lock locks a folder for the life of this process, or until unlock.
func lock(dir string, how int) (unlock func() error, err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), how); err != nil {
		f.Close()
		return nil, err
	}
	return f.Close, nil
}
