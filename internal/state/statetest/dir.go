package statetest

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// memory is a file system in memory, where there is one.
const memory = "/dev/shm"

// Dir returns a folder for state files that goes with the test, in memory where there is a file system for that: a busy
// disk makes every write slow.
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

// sweep removes the folders whose tests were killed: nobody holds their locks. tools/scratch.sh does the same.
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

// lock holds a folder as long as this process lives, or until unlock.
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
