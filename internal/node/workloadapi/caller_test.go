package workloadapi

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestHelperConnect connects and exits, when TestACallerThatExitedIsRefused starts it.
func TestHelperConnect(t *testing.T) {
	path := os.Getenv("ISTHMUS_TEST_CONNECT")
	if path == "" {
		return
	}
	c, err := net.Dial("unix", path)
	must(t, err)
	c.Close()
}

// Whoever takes over the number of the process that connected must not take over what it was granted.
func TestACallerThatExitedIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	must(t, err)
	defer l.Close()
	cmd := exec.Command(os.Args[0], "-test.run=^TestHelperConnect$")
	cmd.Env = append(os.Environ(), "ISTHMUS_TEST_CONNECT="+path)
	must(t, cmd.Run())
	c, err := l.AcceptUnix()
	must(t, err)
	defer c.Close()
	now, err := sinceBoot()
	must(t, err)
	if got, err := identify(c, now); !errors.Is(err, errExited) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestFindWithoutAndWithPidfd(t *testing.T) {
	self := &unix.Ucred{Pid: int32(os.Getpid()), Uid: uint32(os.Geteuid())}
	now, err := sinceBoot()
	must(t, err)
	c, err := find(self, noPidfd, now)
	must(t, err)
	if err := c.isOf(&Workload{}); err != nil {
		t.Errorf("this process is not of its own namespace: %v", err)
	}
	c.proc.Close()
	// Its number was given away: the process is younger than the connection.
	if _, err := find(self, noPidfd, time.Millisecond); !errors.Is(err, errExited) {
		t.Errorf("a younger process: %v", err)
	}
	// The same, where the kernel gives a descriptor: that of a process that has exited, whose number is now this one's.
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	must(t, cmd.Start())
	pidfd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
	must(t, err)
	defer unix.Close(pidfd)
	must(t, cmd.Wait())
	if _, err := find(self, pidfd, now); !errors.Is(err, errExited) {
		t.Errorf("another process with the number: %v", err)
	}
	if _, err := find(&unix.Ucred{}, noPidfd, now); err == nil {
		t.Error("a process that cannot be seen was found")
	}
}

// A granted connection outlives its process when a child inherited it: the next answer is refused.
func TestACallerThatExitsLaterIsRefusedThen(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	must(t, cmd.Start())
	now, err := sinceBoot()
	must(t, err)
	c, err := find(&unix.Ucred{Pid: int32(cmd.Process.Pid)}, noPidfd, now)
	must(t, err)
	defer c.proc.Close()
	must(t, c.isOf(&Workload{}))
	must(t, cmd.Process.Kill())
	cmd.Wait()
	if err := c.isOf(&Workload{}); !errors.Is(err, errExited) {
		t.Errorf("got %v", err)
	}
}

func TestStartTime(t *testing.T) {
	const stat = "4242 (a) name (x)) S 1 4242 4242 0 -1 4194304 500 0 0 0 1 2 0 0 20 0 5 0 123456 1000 100 18446744073709551615"
	if got, err := startTime([]byte(stat)); err != nil || got != 1234560*time.Millisecond {
		t.Errorf("got %v, %v", got, err)
	}
	for _, bad := range []string{"", "1 (x) S 1 2 3", "no parenthesis"} {
		if got, err := startTime([]byte(bad)); err == nil {
			t.Errorf("%q: %v", bad, got)
		}
	}
}
