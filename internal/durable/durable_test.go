package durable

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// What happens to a folder while a file in it is replaced: the new file is written and closed under another name, it is
// given its name, and only then the folder is opened, which is for its sync.
func TestWriteFileSyncsTheFolderLast(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state")
	if err := os.WriteFile(path, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if _, err := unix.InotifyAddWatch(fd, dir,
		unix.IN_CLOSE_WRITE|unix.IN_MOVED_TO|unix.IN_OPEN|unix.IN_CREATE); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(path, []byte("new")); err != nil {
		t.Fatal(err)
	}
	got := events(t, fd)
	want := []string{"create .state-", "open .state-", "written .state-", "named state", "folder opened"}
	if !slices.Equal(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
	text, err := os.ReadFile(path)
	info, serr := os.Stat(path)
	if err != nil || serr != nil || string(text) != "new" || info.Mode().Perm() != 0o600 {
		t.Errorf("%q, %v, %v, %v", text, info.Mode(), err, serr)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func events(t *testing.T, fd int) (all []string) {
	t.Helper()
	buf := make([]byte, 1<<16)
	n, err := unix.Read(fd, buf)
	if err != nil {
		t.Fatal(err)
	}
	for b := buf[:n]; len(b) > 0; {
		mask, length := binary.NativeEndian.Uint32(b[4:]), binary.NativeEndian.Uint32(b[12:])
		name := string(bytes.TrimRight(b[16:16+length], "\x00"))
		if strings.HasPrefix(name, ".state-") {
			name = ".state-"
		}
		switch {
		case mask&unix.IN_CREATE != 0:
			all = append(all, "create "+name)
		case mask&unix.IN_CLOSE_WRITE != 0:
			all = append(all, "written "+name)
		case mask&unix.IN_MOVED_TO != 0:
			all = append(all, "named "+name)
		case mask&unix.IN_OPEN != 0 && mask&unix.IN_ISDIR != 0:
			all = append(all, "folder opened")
		case mask&unix.IN_OPEN != 0:
			all = append(all, "open "+name)
		}
		b = b[16+length:]
	}
	return all
}

// What cannot be written leaves the old file, and nothing else.
func TestWriteFileFails(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "taken"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(dir, "taken"), filepath.Join(dir, "none", "file")} {
		if err := WriteFile(path, []byte("new")); err == nil {
			t.Errorf("%s was written", path)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
