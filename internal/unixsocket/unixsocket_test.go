package unixsocket

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// refused wants an error that says all of this, and that path is as it was.
func refused(t *testing.T, path string, parts ...string) {
	t.Helper()
	l, err := Listen(path, 0o600)
	if err == nil {
		l.Close()
		t.Errorf("%q: it listens", path)
		return
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("%q: %v; want %q", path, err, p)
		}
	}
}

// A name without a file has no mode: every user of the host could connect, or listen in its place.
func TestAbstractNamesAreRefused(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, name := range []string{"@isthmus", "@/run/isthmus.sock", "@", "\x00isthmus", "/run/a\x00b"} {
		refused(t, name, "is an abstract name", "name a file")
	}
	if left, err := os.ReadDir("."); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	refused(t, "", "the path is empty")
	refused(t, "s", "not an absolute path")
	refused(t, "/"+strings.Repeat("x", 107), "has 108 characters")
}

// What is at the path and is no socket, or is a living one, stays.
func TestWhatIsThereStays(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	refused(t, file, "is no socket")
	if text, err := os.ReadFile(file); err != nil || string(text) != "precious" {
		t.Errorf("the file is %q, %v", text, err)
	}
	live := filepath.Join(dir, "live")
	l, err := Listen(live, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	refused(t, live, "something serves at "+live)
	l.SetUnlinkOnClose(false)
	l.Close()
	again, err := Listen(live, 0o600)
	if err != nil {
		t.Errorf("what was left behind is not replaced: %v", err)
	} else {
		again.Close()
	}
}

// A folder that others write to, at any height and behind a link, is none for a socket; a sticky one is.
func TestFoldersOfOthersAreRefused(t *testing.T) {
	dir := t.TempDir()
	open := filepath.Join(dir, "open")
	if err := os.MkdirAll(filepath.Join(open, "inner"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(open, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{
		filepath.Join(open, "s"), filepath.Join(open, "inner", "s"), filepath.Join(dir, "link", "s"),
	} {
		refused(t, path, open+" can be written by others")
	}
	if err := os.Chmod(open, 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	l, err := Listen(filepath.Join(open, "s"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}

// The mode is there when the file is: nobody slips in before it is set.
func TestModeFromTheFirstMoment(t *testing.T) {
	dir := t.TempDir()
	old := unix.Umask(0)
	defer unix.Umask(old)
	for path, listen := range map[string]func(string) (*net.UnixListener, error){
		filepath.Join(dir, "bound"):  func(path string) (*net.UnixListener, error) { return bind(path, 0o600) },
		filepath.Join(dir, "listen"): func(path string) (*net.UnixListener, error) { return Listen(path, 0o600) },
	} {
		l, err := listen(path)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if info, err := os.Lstat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	unix.Umask(0o077)
	l, err := Listen(filepath.Join(dir, "wide"), 0o666)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if info, err := os.Lstat(filepath.Join(dir, "wide")); err != nil || info.Mode().Perm() != 0o666 {
		t.Errorf("whatever the umask: %v, %v", info.Mode(), err)
	}
}
