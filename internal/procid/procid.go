// Package procid tells a process from another one that has its number later.
package procid

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Start returns when a live process started, in clock ticks since the boot, and os.ErrProcessDone for one that has
// ended and is still a zombie.
func Start(pid int) (uint64, error) {
	path := fmt.Sprintf("/proc/%d/stat", pid)
	stat, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	// The name in parentheses may hold anything. After it: the state, and the start time as the 22nd field of all
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

// Boot returns the ID of the host's boot, to which starts belong.
func Boot() (string, error) {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read the boot's id: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}
