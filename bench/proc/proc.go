// Package proc reads from /proc what a process has cost so far.
package proc

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Usage is what a process has cost so far.
type Usage struct {
	CPU     time.Duration // user and system, all threads
	RSS     int           // KB, now
	PeakRSS int           // KB
}

// ticksPerSecond is USER_HZ, which Linux promises to be 100 on every architecture that Go has.
const ticksPerSecond = 100

// Read reads the usage of a process that runs.
func Read(pid int) (Usage, error) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return Usage{}, fmt.Errorf("read what process %d costs: %w", pid, err)
	}
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return Usage{}, fmt.Errorf("read what process %d costs: %w", pid, err)
	}
	return parse(stat, status)
}

// parse takes /proc/PID/stat and /proc/PID/status apart.
func parse(stat, status []byte) (Usage, error) {
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])) // from field 3 on
	if len(fields) < 13 {
		return Usage{}, fmt.Errorf("/proc stat has %d fields after the name", len(fields))
	}
	var u Usage
	for _, f := range fields[11:13] { // fields 14 and 15: utime, stime
		ticks, err := strconv.Atoi(f)
		if err != nil {
			return Usage{}, fmt.Errorf("read /proc stat: %w", err)
		}
		u.CPU += time.Duration(ticks) * time.Second / ticksPerSecond
	}
	for line := range strings.Lines(string(status)) {
		key, value, _ := strings.Cut(line, ":")
		into := map[string]*int{"VmRSS": &u.RSS, "VmHWM": &u.PeakRSS}[key]
		if into == nil {
			continue
		}
		if _, err := fmt.Sscanf(value, "%d kB", into); err != nil {
			return Usage{}, fmt.Errorf("read %s: %w", key, err)
		}
	}
	return u, nil
}
