package netns

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOpenRefusesWhatIsNoNamespace(t *testing.T) {
	file := func(name, content string) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, x := range map[string]struct {
		path   string
		text   string
		absent bool // it may come yet
	}{
		"missing":      {filepath.Join(t.TempDir(), "none"), "does not exist; make it first", true},
		"not mounted":  {file("empty", ""), "no network namespace is mounted here", true},
		"another file": {file("text", "x"), "is a file but not a network namespace", false},
		"a folder":     {t.TempDir(), "is a file but not a network namespace", false},
	} {
		f, err := Open(x.path)
		if err == nil {
			f.Close()
			t.Errorf("%s: no error", name)
			continue
		}
		if !strings.Contains(err.Error(), x.text) || IsAbsent(err) != x.absent {
			t.Errorf("%s: absent %v, error %v", name, IsAbsent(err), err)
		}
	}
}

// TestCheckStable: a path through a process in /proc is refused, since the number may become another process's.
func TestCheckStable(t *testing.T) {
	if err := CheckStable("/proc/self/ns/net"); err == nil || !strings.Contains(err.Error(), "of a process") {
		t.Errorf("a process's namespace: %v", err)
	}
	if err := CheckStable(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing path: %v", err)
	}
	named := filepath.Join(t.TempDir(), "named")
	if err := os.WriteFile(named, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := CheckStable(named); err != nil {
		t.Errorf("a path of its own: %v", err)
	}
}

func TestInodeOfOwnNamespace(t *testing.T) {
	st := unix.Stat_t{}
	if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"", OwnPath} {
		if got, err := Inode(path); err != nil || got != st.Ino {
			t.Errorf("%q: %d, %v, want %d", path, got, err, st.Ino)
		}
	}
}

// TestDo: fn runs in the namespace, its error is returned, and the thread is back in its own afterwards.
func TestDo(t *testing.T) {
	other := newNamespace(t)
	own, err := Inode("")
	if err != nil {
		t.Fatal(err)
	}
	want, err := Inode(other)
	if err != nil || want == own {
		t.Fatalf("the new namespace has number %d, this one %d, %v", want, own, err)
	}
	failure := errors.New("by fn")
	runtime.LockOSThread() // so that what Inode sees afterwards is the thread that Do used
	defer runtime.UnlockOSThread()
	err = Do(other, func() error {
		if got, err := Inode(""); err != nil || got != want {
			t.Errorf("inside: %d, %v, want %d", got, err, want)
		}
		interfaces, err := net.Interfaces()
		if err != nil || len(interfaces) != 1 || interfaces[0].Name != "lo" {
			t.Errorf("inside: interfaces %v, %v", interfaces, err)
		}
		return failure
	})
	if !errors.Is(err, failure) {
		t.Errorf("error %v", err)
	}
	if got, err := Inode(""); err != nil || got != own {
		t.Errorf("afterwards: %d, %v, want %d", got, err, own)
	}
	if err := Do("", func() error { return failure }); !errors.Is(err, failure) {
		t.Errorf("in no other namespace: %v", err)
	}
}

// newNamespace returns the path of a network namespace that ends with the test.
func newNamespace(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to make a network namespace")
	}
	path := make(chan string)
	done := make(chan struct{})
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Error(err)
			close(path)
			return
		}
		f, err := os.Open(OwnPath)
		if err != nil {
			t.Error(err)
			close(path)
			return
		}
		path <- fmt.Sprintf("/proc/self/fd/%d", f.Fd())
		<-done
		f.Close()
	}()
	t.Cleanup(func() { close(done) })
	p, ok := <-path
	if !ok {
		t.FailNow()
	}
	return p
}
