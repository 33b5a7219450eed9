package envoyproc

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"isthmus.dev/isthmus/internal/durable"
	"isthmus.dev/isthmus/internal/procid"
)

const pidFile = "envoy.pid"

// record identifies one running Envoy uniquely, and what it was made of. A pid alone may have been reused.
type record struct {
	pid   int
	start uint64 // clock ticks since boot
	boot  string
	made  string // see fingerprint
}

const recordForm = "%d\nstart %d\nboot %s\nmade %s\n"

// write keeps the record in the run directory; the first line is the pid.
func (r record) write(runDir string) error {
	text := fmt.Sprintf(recordForm, r.pid, r.start, r.boot, r.made)
	if err := durable.WriteFile(filepath.Join(runDir, pidFile), []byte(text)); err != nil {
		return fmt.Errorf("write Envoy's pid: %w", err)
	}
	return nil
}

// readRecord reads what write wrote; false when nothing valid is there.
func readRecord(runDir string) (r record, ok bool) {
	text, err := os.ReadFile(filepath.Join(runDir, pidFile))
	if err != nil {
		return record{}, false
	}
	n, err := fmt.Sscanf(string(text), recordForm, &r.pid, &r.start, &r.boot, &r.made)
	return r, err == nil && n == 4 && r.pid > 1
}

// fingerprint returns the hash of what an Envoy is made of: its program, arguments and bootstrap. An Envoy with another
// fingerprint is replaced rather than taken over.
func fingerprint(cfg Config, bootstrap []byte) (string, error) {
	st, err := os.Stat(cfg.Binary)
	if err != nil {
		return "", fmt.Errorf("look at Envoy: %w", err)
	}
	sys := st.Sys().(*syscall.Stat_t)
	h := sha256.New()
	fmt.Fprintf(h, "%d %d %d %d\n%q\n", sys.Dev, sys.Ino, st.Size(), st.ModTime().UnixNano(), arguments(cfg))
	if g := cfg.Group; g != nil {
		fmt.Fprintf(h, "%d\n", g.ID)
	}
	h.Write(bootstrap)
	return fmt.Sprintf("%x", h.Sum(nil)), nil
}

// orphans returns the processes of this user that run with the bootstrap of a run directory, including one whose agent
// died before it wrote the record.
func orphans(runDir string) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() || !runsWith(pid, filepath.Join(runDir, bootstrapFile)) {
			continue
		}
		if st, err := os.Stat(filepath.Join("/proc", e.Name())); err == nil &&
			int(st.Sys().(*syscall.Stat_t).Uid) == os.Geteuid() {
			pids = append(pids, pid)
		}
	}
	return pids
}

func runsWith(pid int, bootstrap string) bool {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return false
	}
	args := strings.Split(string(line), "\x00")
	i := slices.Index(args, "--config-path")
	return i >= 0 && i+1 < len(args) && args[i+1] == bootstrap
}

// find opens the Envoy that an earlier agent left in the run directory, if it is still the recorded one.
func find(runDir string) (*process, record, error) {
	r, ok := readRecord(runDir)
	if !ok {
		return nil, record{}, os.ErrNotExist
	}
	boot, err := procid.Boot()
	if err != nil {
		return nil, record{}, err
	}
	if r.boot != boot {
		return nil, record{}, os.ErrNotExist
	}
	p, err := open(r.pid)
	if err != nil {
		return nil, record{}, err
	}
	// Checked after the process was opened, so that it cannot be reused in between.
	if start, err := procid.Start(r.pid); err != nil || start != r.start {
		return nil, record{}, errors.Join(os.ErrNotExist, p.close())
	}
	return p, r, nil
}

// End ends whatever Envoy runs in a run directory without an agent.
func End(runDir string) error {
	var left []error
	for _, pid := range orphans(runDir) {
		p, err := open(pid)
		if err != nil {
			continue // gone
		}
		if runsWith(pid, filepath.Join(runDir, bootstrapFile)) {
			left = append(left, p.stop())
		}
		left = append(left, p.close())
	}
	return errors.Join(left...)
}
