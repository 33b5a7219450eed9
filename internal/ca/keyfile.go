package ca

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"isthmus.dev/isthmus/internal/durable"
)

const (
	keyFileMade   = "# made by isthmus: it encrypts the CA keys in the state file; back it up apart from that file\n"
	keyFileGuards = "# guards root "
	keyFileHelp   = "it must hold 32 random bytes in base64, as `openssl rand -base64 32` prints them"
)

// keyFile is a key file as read.
type keyFile struct {
	key    sealKey
	ours   bool // made by Isthmus
	guards bool // a root was made under this key
}

// readKeyFile returns os.ErrNotExist if there is no key file.
func readKeyFile(path string) (keyFile, error) {
	text, err := readPrivate(path)
	if err != nil {
		return keyFile{}, err
	}
	f := keyFile{ours: bytes.HasPrefix(text, []byte(keyFileMade))}
	var body string
	for line := range strings.Lines(string(text)) {
		f.guards = f.guards || strings.HasPrefix(line, keyFileGuards)
		if !strings.HasPrefix(line, "#") {
			body += strings.TrimSpace(line)
		}
	}
	raw, err := base64.StdEncoding.DecodeString(body)
	if err != nil || len(raw) != len(f.key) {
		// the underlying error would quote the key
		return keyFile{}, fmt.Errorf("key file %s does not hold a key: %s", path, keyFileHelp)
	}
	copy(f.key[:], raw)
	return f, nil
}

// readPrivate reads a small file that only its owner can read.
func readPrivate(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return nil, fmt.Errorf("%s is a folder: name a file", path)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("%s has mode %04o, so others may read the secret in it: run chmod 600 %s",
			path, mode, path)
	}
	const limit = 64 << 10
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	if len(text) > limit {
		return nil, fmt.Errorf("%s is larger than %d bytes: it is not the file that was meant", path, limit)
	}
	return text, err
}

// makeKeyFile writes a new key file. It never overwrites one.
func makeKeyFile(path string) (keyFile, error) {
	f := keyFile{ours: true}
	rand.Read(f.key[:]) // never fails
	text := keyFileMade + base64.StdEncoding.EncodeToString(f.key[:]) + "\n"
	// Link the complete file into place, so that a crash leaves no partial key.
	tmp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return f, fmt.Errorf("make key file %s: %w", path, err)
	}
	defer os.Remove(tmp.Name())
	_, werr := tmp.WriteString(text)
	if err := errors.Join(werr, tmp.Sync(), tmp.Close()); err != nil {
		return f, fmt.Errorf("make key file %s: %w", path, err)
	}
	if err := os.Link(tmp.Name(), path); err != nil {
		return f, fmt.Errorf("make key file %s: %w", path, err)
	}
	return f, durable.SyncFolder(filepath.Dir(path))
}

// markKeyFile records in our key file that a root was made under it. A later start without that root then detects that
// the state was lost, instead of silently starting a new mesh.
func markKeyFile(path, fingerprint string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("note the root in key file: %w", err)
	}
	_, werr := f.WriteString(keyFileGuards + fingerprint + "\n")
	if err := errors.Join(werr, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("note the root in key file %s: %w", path, err)
	}
	return nil
}
