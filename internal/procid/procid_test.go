package procid

import (
	"errors"
	"os"
	"os/exec"
	"regexp"
	"testing"

	"isthmus.dev/isthmus/internal/waittest"
)

func TestStart(t *testing.T) {
	self, err := Start(os.Getpid())
	if err != nil || self == 0 {
		t.Errorf("this process started at %d, %v", self, err)
	}
	child := exec.Command("sh", "-c", "read x") // ends with its input
	in, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	if start, err := Start(child.Process.Pid); err != nil || start < self {
		t.Errorf("a child of this process started at %d, before %d: %v", start, self, err)
	}
	in.Close()
	waittest.Until(t, "a zombie has ended", func() bool {
		_, err := Start(child.Process.Pid)
		return errors.Is(err, os.ErrProcessDone)
	})
	_ = child.Wait()
	if _, err := Start(child.Process.Pid); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a process that is gone: %v", err)
	}
}

func TestBoot(t *testing.T) {
	boot, err := Boot()
	if err != nil || !regexp.MustCompile(`^[0-9a-f-]{36}$`).MatchString(boot) {
		t.Errorf("%q, %v", boot, err)
	}
}
