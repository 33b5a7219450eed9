//go:build e2e

package accesslog

import (
	"bufio"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestFullDisk: entries that do not fit are lost and counted, which is said once; nobody waits for the disk; when there
// is room again entries are written as ever, each on a whole line.
func TestFullDisk(t *testing.T) {
	disk := t.TempDir()
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatalf("mount a small file system (needs root): %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(disk, unix.MNT_DETACH) })
	var said strings.Builder
	path, filler := filepath.Join(disk, "access.log"), filepath.Join(disk, "filler")
	if err := os.WriteFile(filler, make([]byte, 32<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	s := New(Config{Log: slog.New(slog.NewTextHandler(&said, nil)), Path: path, MaxBytes: 1 << 20})
	entry := func(n int) Entry {
		return Entry{Log: "egress", Verdict: "allowed", Destination: strings.Repeat("x", 100+n%7)}
	}
	for n := range 1000 {
		s.take(entry(n))
		if n%5 == 0 {
			s.reportWriteError(s.file.flush())
		}
	}
	if n := strings.Count(said.String(), "no space left on device"); n != 1 || s.file.lostEntries() < 500 {
		t.Errorf("it said %d times that the disk is full, and counts %d entries as lost:\n%s",
			n, s.file.lostEntries(), said.String())
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	for n := range 20 {
		s.take(entry(n))
	}
	s.reportWriteError(s.file.flush())
	if !strings.Contains(said.String(), "access log written again") {
		t.Errorf("not said that all is well: %s", said.String())
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	whole := 0
	for lines := bufio.NewScanner(f); lines.Scan(); whole++ {
		if err := json.Unmarshal(lines.Bytes(), &Entry{}); err != nil {
			t.Errorf("line %d: %v: %s", whole+1, err, lines.Text())
		}
	}
	if whole < 40 {
		t.Errorf("%d entries were kept", whole)
	}
}
