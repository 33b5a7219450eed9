package node

import "testing"

// However many workloads a host has, and whatever they do, their logs do not fill its disk.
func TestLogsAreBoundedInAll(t *testing.T) {
	for workloads, want := range map[int]int64{
		0: 8 << 20, 1: 8 << 20, 15: 8 << 20, 31: 4 << 20, 127: 1 << 20, 500: 1 << 20,
	} {
		got := logBytes(workloads)
		if got != want {
			t.Errorf("%d workloads: %d bytes a file, want %d", workloads, got, want)
		}
		if all := got * 4 * int64(workloads+1); workloads < 128 && all > 512<<20 {
			t.Errorf("%d workloads: %d bytes in all", workloads, all)
		}
	}
}
