//go:build e2e

package cgroup

import (
	"os/exec"
	"regexp"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// What agents that were killed left is removed by the next one, whatever its name: not what a living agent has, or a
// process is in.
func TestNetnsSweep(t *testing.T) {
	made := func(name string) *Group {
		g := New(name)
		if err := g.Make(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			last := New(name)
			if err := last.Make(); err != nil {
				t.Error(err)
			} else if err := last.Remove(); err != nil {
				t.Error(err)
			}
			last.Close()
		})
		return g
	}
	alike := regexp.MustCompile(`^isthmus-sweep-[0-9a-f]{8}$`)
	killed, living, busy := made("isthmus-sweep-00000001"), made("isthmus-sweep-00000002"),
		made("isthmus-sweep-00000003")
	other, own := made("isthmus-sweep-other"), made("isthmus-sweep-00000004")
	defer living.Close()
	defer own.Close()
	p := exec.Command("cat")
	in, err := p.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: busy.FD()}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	for _, g := range []*Group{killed, busy, other} {
		g.Close()
	}
	sweep := func(want map[string]bool) {
		t.Helper()
		if err := own.Sweep(alike); err != nil {
			t.Error(err)
		}
		for name, there := range want {
			var st unix.Stat_t
			if err := unix.Fstatat(int(own.mount.Fd()), name, &st, 0); (err == nil) != there {
				t.Errorf("%s: %v, there %v", name, err, there)
			}
		}
	}
	sweep(map[string]bool{
		"isthmus-sweep-00000001": false, "isthmus-sweep-00000002": true, "isthmus-sweep-00000003": true,
		"isthmus-sweep-00000004": true,
		"isthmus-sweep-other":    true,
	})
	in.Close()
	if err := p.Wait(); err != nil {
		t.Error(err)
	}
	sweep(map[string]bool{"isthmus-sweep-00000002": true, "isthmus-sweep-00000003": false})
	again := New("isthmus-sweep-00000001")
	if err := again.Make(); err != nil || again.ID == killed.ID {
		t.Errorf("made again: %v, %v", err, again.ID)
	}
	again.Close()
}
