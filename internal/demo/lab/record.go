package lab

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"isthmus.dev/isthmus/internal/durable"
	"isthmus.dev/isthmus/internal/procid"
)

// recordName is the file in a lab's folder that lists what belongs to it.
const recordName = "lab.json"

// record lists what belongs to one lab. It is written before a thing is created, and read to find what is left over.
type record struct {
	Prefix     string    `json:"prefix"`
	Namespaces []string  `json:"namespaces"`
	Processes  []process `json:"processes"`
}

// process identifies one process for certain. A process ID alone may be reused.
type process struct {
	PID     int    `json:"pid"`
	Start   uint64 `json:"start"` // clock ticks since boot
	Boot    string `json:"boot"`
	Command string `json:"command"`
}

func readRecord(dir string) (record, error) {
	var r record
	b, err := os.ReadFile(filepath.Join(dir, recordName))
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("read %s: %w", filepath.Join(dir, recordName), err)
	}
	return r, nil
}

func (r record) write(dir string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := durable.WriteFile(filepath.Join(dir, recordName), append(b, '\n')); err != nil {
		return fmt.Errorf("write the record: %w", err)
	}
	return nil
}

// identify returns the identity of a live process.
func identify(pid int) (process, error) {
	start, err := procid.Start(pid)
	if err != nil {
		return process{}, err
	}
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return process{}, err
	}
	boot, err := procid.Boot()
	if err != nil {
		return process{}, err
	}
	return process{
		PID: pid, Start: start, Boot: boot,
		Command: string(bytes.ReplaceAll(bytes.TrimRight(cmdline, "\x00"), []byte{0}, []byte{' '})),
	}, nil
}

// kill kills the process if it is still the recorded one, and reports whether it did.
func (p process) kill() bool {
	now, err := identify(p.PID)
	return err == nil && now == p && unix.Kill(p.PID, unix.SIGKILL) == nil
}

// processesIn returns the processes in a named network namespace.
func processesIn(name string) ([]process, error) {
	var ns unix.Stat_t
	if err := unix.Stat(NetnsPath(name), &ns); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return nil, nil
		}
		return nil, fmt.Errorf("look at network namespace %s: %w", name, err)
	}
	if own, err := os.Stat("/proc/thread-self/ns/net"); err == nil {
		if st, err := os.Stat(NetnsPath(name)); err == nil && os.SameFile(own, st) {
			return nil, fmt.Errorf("network namespace %s is the one this command runs in: run it from outside", name)
		}
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var found []process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		var st unix.Stat_t
		if unix.Stat(fmt.Sprintf("/proc/%d/ns/net", pid), &st) != nil || st.Ino != ns.Ino || st.Dev != ns.Dev {
			continue
		}
		if p, err := identify(pid); err == nil {
			found = append(found, p)
		}
	}
	return found, nil
}

// existing returns those of the names that are network namespaces.
func existing(names []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		_, err := os.Lstat(NetnsPath(name))
		return err != nil
	})
}
