// Package durable writes files atomically, so that they survive a loss of power.
package durable

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// WriteFile replaces a file atomically, with mode 0600. When it returns nil, content and name are on the disk. A loss
// of power before that leaves the old file, if any.
func WriteFile(path string, content []byte) error { return WriteFileAs(path, content, 0o600) }

// WriteFileAs is WriteFile with another mode.
func WriteFileAs(path string, content []byte, mode os.FileMode) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+"-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails harmlessly after the rename
	_, err = f.Write(content)
	if err := errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return SyncFolder(dir)
}

// Create writes a new file with mode 0600. Until SyncFile and SyncFolder have returned, a loss of power may leave none,
// or a part of it.
func Create(path string, content []byte) error {
	err := os.WriteFile(path, content, 0o600)
	if err != nil {
		os.Remove(path) //nolint:errcheck // it may not be there
	}
	return err
}

// SyncFile makes a file's content durable.
func SyncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// SyncFolder makes changes to a directory's entries durable.
func SyncFolder(dir string) error {
	if err := SyncFile(dir); err != nil {
		return fmt.Errorf("write folder %s to the disk: %w", dir, err)
	}
	return nil
}
