package accesslog

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxLine bounds one line that is read back. Every written line is shorter.
const maxLine = 1 << 20

// Reader reads entries back from the files of agents on this host, rotated files first.
type Reader struct {
	folders []string
	at      map[string]*position
}

// position is how far one file was read. A file counts as another one once it is rotated.
type position struct {
	info fs.FileInfo
	read int64
}

// NewReader reads the logs in the run folders of agents.
func NewReader(folders ...string) *Reader {
	return &Reader{folders: folders, at: map[string]*position{}}
}

// Read returns the entries written since the last call, by time. It skips invalid lines.
func (r *Reader) Read() ([]Entry, error) {
	var all []Entry
	for _, folder := range r.folders {
		names, err := logFiles(folder)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			entries, err := r.readFile(name)
			if err != nil && !errors.Is(err, fs.ErrNotExist) { // it may just have been rotated
				return nil, err
			}
			all = append(all, entries...)
		}
	}
	slices.SortStableFunc(all, func(a, b Entry) int { return a.Time.Compare(b.Time) })
	return all, nil
}

// Files returns how many files were read.
func (r *Reader) Files() int { return len(r.at) }

// logFiles returns the files of boundary crossings and refusals in a run folder.
func logFiles(folder string) ([]string, error) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		name := strings.TrimSuffix(e.Name(), ".1")
		if strings.HasPrefix(name, "access.") && strings.HasSuffix(name, ".log") && e.Type().IsRegular() {
			names = append(names, filepath.Join(folder, e.Name()))
		}
	}
	slices.SortFunc(names, func(a, b string) int { // x.log.1 holds what is older than x.log
		return strings.Compare(strings.TrimSuffix(a, ".1")+older(a), strings.TrimSuffix(b, ".1")+older(b))
	})
	return names, nil
}

func older(name string) string {
	if strings.HasSuffix(name, ".1") {
		return " "
	}
	return "~"
}

// readFile reads what is new in one file. One that was turned since is recognised under its new name.
func (r *Reader) readFile(name string) ([]Entry, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	at := r.positionOf(name, info)
	if _, err := f.Seek(at.read, io.SeekStart); err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	var out []Entry
	lines := bufio.NewReaderSize(f, maxLine)
	for {
		line, err := lines.ReadSlice('\n')
		if err != nil { // the end, or a line that is still being written
			return out, nil
		}
		at.read += int64(len(line))
		var e Entry
		if json.Unmarshal(bytes.TrimSpace(line), &e) == nil {
			out = append(out, e)
		}
	}
}

func (r *Reader) positionOf(name string, info fs.FileInfo) *position {
	for known, at := range r.at {
		if os.SameFile(at.info, info) {
			if known != name {
				delete(r.at, known)
				r.at[name] = at
			}
			if info.Size() < at.read { // cut off: a torn line was mended
				at.read = info.Size()
			}
			return at
		}
	}
	at := &position{info: info}
	r.at[name] = at
	return at
}
