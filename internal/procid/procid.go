// Package procid distinguishes a process from a later one with the same PID.
package procid

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Start returns when a live process started, in clock ticks since boot. It returns os.ErrProcessDone for a zombie.
func Start(pid int) (uint64, error) {
	path := fmt.Sprintf("/proc/%d/stat", pid)
	stat, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	// The name in parentheses may contain anything. After it come the state and, as field 22 of all, the start time
	// (proc(5)).
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 20 {
		return 0, fmt.Errorf("read %s: unexpected form", path)
	}
	if fields[0] == "Z" || fields[0] == "X" {
		return 0, os.ErrProcessDone
	}
	start, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", path, err)
	}
	return start, nil
}

// Boot returns the ID of the host's boot, to which Start's times are relative.
func Boot() (string, error) {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read the boot's id: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}
