package accesslog

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
)

// file is a file of JSON lines that never grows beyond max: at that size it becomes path.1, in place of an older one.
type file struct {
	path string
	max  int64

	mu      sync.Mutex // guards what follows
	f       *os.File
	w       *bufio.Writer
	size    int64
	pending uint64 // entries since the last flush
	lost    uint64 // entries that could not be written
	err     error  // why the file is not open, when it was to be
}

func (f *file) write(e *Entry) error {
	line, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("encode access log entry: %w", err)
	}
	line = append(line, '\n')
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pending++
	if err := f.room(int64(len(line))); err != nil {
		return f.failed(err)
	}
	n, err := f.w.Write(line)
	f.size += int64(n)
	return f.failed(err)
}

// room opens the file if needed and makes room for n more bytes.
func (f *file) room(n int64) error {
	if f.f != nil && f.size+n > f.max {
		err := errors.Join(f.w.Flush(), f.f.Close(), os.Rename(f.path, f.path+".1"))
		f.f = nil
		if err != nil {
			return fmt.Errorf("rotate access log: %w", err)
		}
	}
	if f.f != nil {
		return nil
	}
	opened, err := os.OpenFile(f.path, os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("open access log: %w", err)
	}
	size, err := wholeLines(opened)
	if err != nil {
		return errors.Join(fmt.Errorf("repair access log: %w", err), opened.Close())
	}
	f.f, f.w, f.size = opened, bufio.NewWriter(opened), size
	return nil
}

// maxTorn is more than the size of any entry.
const maxTorn = 1 << 20

// wholeLines removes an entry that a full disk or a crash left incomplete, and returns the remaining size.
func wholeLines(f *os.File) (size int64, err error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	end := make([]byte, min(st.Size(), maxTorn))
	if _, err := f.ReadAt(end, st.Size()-int64(len(end))); err != nil {
		return 0, err
	}
	torn := int64(len(end) - bytes.LastIndexByte(end, '\n') - 1)
	if torn == 0 {
		return st.Size(), nil
	}
	return st.Size() - torn, f.Truncate(st.Size() - torn)
}

func (f *file) flush() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.f == nil {
		return f.err
	}
	if err := f.failed(f.w.Flush()); err != nil {
		return err
	}
	f.pending, f.err = 0, nil
	return nil
}

// failed closes a file that could not be written, so that the next entry starts afresh: a full disk may be cleared.
func (f *file) failed(err error) error {
	if err == nil {
		return nil
	}
	f.lost, f.pending = f.lost+f.pending, 0
	if f.f != nil {
		f.f.Close()
		f.f = nil
	}
	f.err = fmt.Errorf("write access log: %w", err)
	return f.err
}

// lostEntries returns how many entries could not be written. When a disk is full, most of the last ones may have been
// written after all.
func (f *file) lostEntries() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lost
}

func (f *file) close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.f == nil {
		return nil
	}
	err := errors.Join(f.w.Flush(), f.f.Close())
	f.f = nil
	return err
}
