package file

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"isthmus.dev/isthmus/internal/istioyaml"
)

// stamp tells whether a file may have changed since it was read.
type stamp struct {
	size         int64
	mtime, ctime time.Time
	dev, inode   uint64
}

func stampOf(info fs.FileInfo) stamp {
	s := stamp{size: info.Size(), mtime: info.ModTime()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		s.dev, s.inode, s.ctime = uint64(st.Dev), st.Ino, time.Unix(st.Ctim.Unix())
	}
	return s
}

// listing is the result of one scan of the folder.
type listing struct {
	files map[string]stamp
	dirs  map[string]stamp // all scanned folders, to be watched
	// errs are files and folders that could not be accessed. Nothing is known about what is beneath them.
	errs map[string]error
}

// isConfig reports whether a file of this name is configuration. Hidden files (of editors, and Kubernetes' "..data")
// are not.
func isConfig(path string) bool {
	base := filepath.Base(path)
	if strings.HasPrefix(base, ".") {
		return false
	}
	switch filepath.Ext(base) {
	case ".yaml", ".yml", ".json":
		return true
	}
	return false
}

// maxFolders limits the scanned folders, so that a link to the root of the file system does little harm.
const maxFolders = 2000

var errManyFolders = fmt.Errorf("there are more than %d folders beneath it: take out links that lead elsewhere",
	maxFolders)

// scan walks a folder and follows symbolic links, visiting each folder once. Links to folders come last, so that their
// targets cannot keep real subfolders from being read.
func scan(root string) listing {
	l := listing{files: map[string]stamp{}, dirs: map[string]stamp{}, errs: map[string]error{}}
	info, err := os.Stat(root)
	switch {
	case err != nil:
		l.errs[root] = err
	case !info.IsDir():
		l.errs[root] = &fs.PathError{Op: "read", Path: root, Err: syscall.ENOTDIR}
	default:
		seen := map[[2]uint64]bool{}
		links := l.walk(root, root, stampOf(info), seen)
		for len(links) > 0 {
			next := links[0]
			links = append(links[1:], l.walk(next.path, next.path, next.stamp, seen)...)
		}
	}
	return l
}

// link is a symbolic link to a folder.
type link struct {
	path  string
	stamp stamp
}

// walk lists a folder and its subfolders and returns links to others. If there are too many, everything beneath top
// counts as unknown.
func (l *listing) walk(top, dir string, st stamp, seen map[[2]uint64]bool) (links []link) {
	id := [2]uint64{st.dev, st.inode}
	if seen[id] {
		return nil
	}
	if len(seen) >= maxFolders {
		l.errs[top] = errManyFolders
		return nil
	}
	seen[id] = true
	l.dirs[dir] = st
	entries, err := os.ReadDir(dir)
	if err != nil {
		l.errs[dir] = err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		linked := e.Type()&fs.ModeSymlink != 0
		if strings.HasPrefix(e.Name(), ".") || !e.IsDir() && !linked && !isConfig(path) {
			continue
		}
		info, err := os.Stat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist) && !linked:
			// removed since the folder was listed
		case err != nil:
			if isConfig(path) || e.IsDir() || linked && !errors.Is(err, fs.ErrNotExist) {
				l.errs[path] = err // including names or paths that are too long
			}
		case info.IsDir() && linked:
			links = append(links, link{path, stampOf(info)})
		case info.IsDir():
			links = append(links, l.walk(top, path, stampOf(info), seen)...)
		case info.Mode().IsRegular() && isConfig(path):
			l.files[path] = stampOf(info)
		}
	}
	return links
}

// unknown reports whether a path is at or beneath something that could not be accessed.
func (l *listing) unknown(path string) bool {
	for p := path; ; p = filepath.Dir(p) {
		if _, ok := l.errs[p]; ok {
			return true
		}
		if p == filepath.Dir(p) {
			return false
		}
	}
}

// read reads a file, provided that it does not change meanwhile. It opens neither pipes nor devices.
func read(path string) ([]byte, stamp, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, stamp{}, err
	}
	defer f.Close() // nothing was written
	info, err := f.Stat()
	if err != nil {
		return nil, stamp{}, err
	}
	if !info.Mode().IsRegular() {
		return nil, stamp{}, fmt.Errorf("read %s: not a regular file", path)
	}
	text, err := io.ReadAll(io.LimitReader(f, istioyaml.MaxFileBytes+1))
	if err != nil {
		return nil, stamp{}, err
	}
	return text, stampOf(info), nil
}
