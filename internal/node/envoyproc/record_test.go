package envoyproc

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"isthmus.dev/isthmus/internal/procid"
	"isthmus.dev/isthmus/internal/waittest"
)

func TestRecordForm(t *testing.T) {
	dir := t.TempDir()
	want := record{pid: 4711, start: 99, boot: "2f0c", made: "ab12"}
	if err := want.write(dir); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "envoy.pid"))
	if err != nil || string(text) != "4711\nstart 99\nboot 2f0c\nmade ab12\n" {
		t.Errorf("%q, %v", text, err)
	}
	if got, ok := readRecord(dir); !ok || got != want {
		t.Errorf("%+v, %v", got, ok)
	}
	for _, damaged := range []string{
		"", "4711\n", "1\nstart 99\nboot 2f0c\nmade ab12\n", "-5\nstart 99\nboot 2f0c\nmade ab12\n",
		"4711\nstart soon\nboot 2f0c\nmade ab12\n", "4711\nstart 99\nboot 2f0c\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, "envoy.pid"), []byte(damaged), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, ok := readRecord(dir); ok {
			t.Errorf("%q is read as %+v", damaged, got)
		}
	}
}

// TestFindChecksIdentity: a process is Envoy only with the recorded start and boot, not by its number alone.
func TestFindChecksIdentity(t *testing.T) {
	child := idle(t, "sleep", "60")
	start, err := procid.Start(child.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	boot, err := procid.Boot()
	if err != nil {
		t.Fatal(err)
	}
	running := record{pid: child.Process.Pid, start: start, boot: boot, made: "x"}
	find := func(r record) error {
		dir := t.TempDir()
		if err := r.write(dir); err != nil {
			t.Fatal(err)
		}
		p, got, err := find(dir)
		if err == nil {
			p.close()
			if got != r {
				t.Errorf("found %+v, want %+v", got, r)
			}
		}
		return err
	}
	if err := find(running); err != nil {
		t.Errorf("the process itself: %v", err)
	}
	later, otherBoot := running, running
	later.start++
	otherBoot.boot = "another"
	for name, r := range map[string]record{"started later": later, "of another boot": otherBoot} {
		if err := find(r); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	child.Process.Kill()
	waittest.Until(t, "a zombie does not count as running", func() bool {
		_, err := procid.Start(running.pid)
		return errors.Is(err, os.ErrProcessDone)
	})
}

// TestOrphansAreFoundByBootstrap: those of another run directory are left alone.
func TestOrphansAreFoundByBootstrap(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	ours := idle(t, "sh", "-c", "read x", "sh", "--config-path", filepath.Join(dir, bootstrapFile))
	idle(t, "sh", "-c", "read x", "sh", "--config-path", filepath.Join(other, bootstrapFile))
	if got := orphans(dir); !slices.Equal(got, []int{ours.Process.Pid}) {
		t.Errorf("processes %v, want %d", got, ours.Process.Pid)
	}
	if err := End(dir); err != nil {
		t.Fatal(err)
	}
	if got := orphans(dir); len(got) != 0 {
		t.Errorf("after the end: %v", got)
	}
	if got := orphans(other); len(got) != 1 {
		t.Errorf("of the other run directory: %v", got)
	}
}

// idle runs a program until the test ends.
func idle(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(name, args...)
	if _, err := cmd.StdinPipe(); err != nil { // held open: a program that reads it waits
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return cmd
}
