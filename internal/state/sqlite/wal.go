package sqlite

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
)

const (
	walHeader   = 32
	frameHeader = 24
)

// inspectLog detects damage in the middle of the write-ahead log. SQLite silently ends the log at the first frame with
// a wrong checksum and drops the rest. That is right for the torn end of a crash, but after a bit flip it would undo
// acknowledged transactions. A crash leaves at most one unfinished transaction, so frames of a further one after the
// first bad frame prove damage. Damage inside the very last transaction looks like a crash and is not detected.
func inspectLog(path string) error {
	log, err := os.ReadFile(path + "-wal")
	if errors.Is(err, os.ErrNotExist) || err == nil && len(log) <= walHeader {
		return nil
	}
	if err != nil {
		return err
	}
	if lost := lostCommits(log); lost != "" {
		return damaged(path, "its log "+path+"-wal is damaged: "+lost)
	}
	return nil
}

// lostCommits describes the committed transactions that SQLite would drop from a log; empty if there are none. Format:
// sqlite.org/fileformat2.html §4.
func lostCommits(log []byte) string {
	order, ok := walOrder(log)
	if !ok {
		return "its header is not that of a log"
	}
	var s0, s1 uint32
	s0, s1 = walSum(order, s0, s1, log[:24])
	if s0 != binary.BigEndian.Uint32(log[24:]) || s1 != binary.BigEndian.Uint32(log[28:]) {
		return "its header is not as it was written"
	}
	salt := [8]byte(log[16:24])
	size := frameHeader + int(binary.BigEndian.Uint32(log[8:]))
	n := (len(log) - walHeader) / size
	frame := func(i int) []byte { return log[walHeader+i*size:][:size] }

	bad := 0 // the first frame that SQLite would reject
	for ; bad < n; bad++ {
		f := frame(bad)
		t0, t1 := walSum(order, s0, s1, f[:8])
		t0, t1 = walSum(order, t0, t1, f[frameHeader:])
		if [8]byte(f[8:16]) != salt || t0 != binary.BigEndian.Uint32(f[16:]) || t1 != binary.BigEndian.Uint32(f[20:]) {
			break
		}
		s0, s1 = t0, t1
	}
	commits := 0 // complete transactions from the bad frame on
	for i := bad; i < n; i++ {
		f := frame(i)
		if [8]byte(f[8:16]) != salt {
			continue // left over from an earlier use of the log, or the bad frame itself
		}
		if commits > 0 {
			return fmt.Sprintf("frame %d of %d is not as it was written, and whole transactions follow it", bad+1, n)
		}
		if binary.BigEndian.Uint32(f[4:]) != 0 {
			commits++
		}
	}
	return ""
}

func walOrder(log []byte) (binary.ByteOrder, bool) {
	pageSize := binary.BigEndian.Uint32(log[8:])
	if pageSize < 512 || pageSize > 65536 {
		return nil, false
	}
	switch binary.BigEndian.Uint32(log) {
	case 0x377f0682:
		return binary.LittleEndian, true
	case 0x377f0683:
		return binary.BigEndian, true
	default:
		return nil, false
	}
}

// walSum computes the log's running checksum in 8-byte steps.
func walSum(order binary.ByteOrder, s0, s1 uint32, b []byte) (uint32, uint32) {
	for ; len(b) >= 8; b = b[8:] {
		s0 += order.Uint32(b) + s1
		s1 += order.Uint32(b[4:]) + s0
	}
	return s0, s1
}
