// Package proc reads from /proc what a process has cost so far.
package proc

import (
	"bytes"
	"errors"
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

// CPU is what the threads of a process that live now have used, to the microsecond; Read counts ended ones too, but in
// hundredths of a second.
func CPU(pid int) (time.Duration, error) {
	tasks, err := filepath.Glob(filepath.Join("/proc", strconv.Itoa(pid), "task", "*", "schedstat"))
	if err != nil || len(tasks) == 0 {
		return 0, fmt.Errorf("read what the threads of process %d cost: %w", pid, errors.Join(err, os.ErrNotExist))
	}
	var sum time.Duration
	for _, file := range tasks {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		used, _, _ := strings.Cut(string(text), " ")
		ns, err := strconv.ParseInt(used, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read %s: %w", file, err)
		}
		sum += time.Duration(ns)
	}
	return sum, nil
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
