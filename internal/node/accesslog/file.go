package accesslog

import (
	"bufio"
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

	mu   sync.Mutex // guards what follows
	f    *os.File
	w    *bufio.Writer
	size int64
}

func (f *file) write(e *Entry) error {
	line, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("encode access log entry: %w", err)
	}
	line = append(line, '\n')
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.room(int64(len(line))); err != nil {
		return err
	}
	n, err := f.w.Write(line)
	f.size += int64(n)
	return f.failed(err)
}

// room makes sure that the file is open and has room for n more bytes.
func (f *file) room(n int64) error {
	if f.f != nil && f.size+n > f.max {
		err := errors.Join(f.w.Flush(), f.f.Close(), os.Rename(f.path, f.path+".1"))
		f.f = nil
		if err != nil {
			return fmt.Errorf("turn access log: %w", err)
		}
	}
	if f.f != nil {
		return nil
	}
	opened, err := os.OpenFile(f.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open access log: %w", err)
	}
	st, err := opened.Stat()
	if err != nil {
		opened.Close()
		return fmt.Errorf("stat access log: %w", err)
	}
	f.f, f.w, f.size = opened, bufio.NewWriter(opened), st.Size()
	return nil
}

func (f *file) flush() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.f == nil {
		return nil
	}
	return f.failed(f.w.Flush())
}

// failed forgets a file that could not be written, so that the next entry begins afresh: a full disk heals.
func (f *file) failed(err error) error {
	if err == nil {
		return nil
	}
	f.f.Close()
	f.f = nil
	return fmt.Errorf("write access log: %w", err)
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
