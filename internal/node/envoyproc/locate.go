// Package envoyproc runs the agent's Envoy: it finds the binary, writes the bootstrap, starts Envoy, and restarts it
// when it dies. Envoy outlives an agent that crashes or is killed: the next agent finds it by the pid file, which
// identifies the process uniquely, and takes it over, so that no connection is lost. An agent that is told to stop ends
// it.
package envoyproc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"time"
)

// Version of Envoy that Isthmus is made for.
const Version = "1.40.0"

// Packaged is where the package isthmus-envoy puts Envoy.
const Packaged = "/usr/lib/isthmus/envoy"

// Locate finds the Envoy binary: $ISTHMUS_ENVOY, then the packaged one, PATH, and the cache that `make envoy` fills.
func Locate(cacheDir string) (string, error) {
	if path := os.Getenv("ISTHMUS_ENVOY"); path != "" {
		if err := Executable(path); err != nil {
			return "", fmt.Errorf("ISTHMUS_ENVOY: %w", err)
		}
		return filepath.Abs(path)
	}
	if Executable(Packaged) == nil {
		return Packaged, nil
	}
	if path, err := exec.LookPath("envoy"); err == nil {
		return filepath.Abs(path)
	}
	path := filepath.Join(cacheDir, "envoy-"+Version, "envoy")
	if err := Executable(path); err != nil {
		return "",
			fmt.Errorf("no Envoy in ISTHMUS_ENVOY, PATH or %s: install the package isthmus-envoy, run `make envoy`, which fetches it, or set ISTHMUS_ENVOY to an Envoy %s", path, Version)
	}
	return filepath.Abs(path) // it is tried in other folders, too
}

// Executable makes sure that a path names a program.
func Executable(path string) error {
	st, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("no Envoy at %s: install the package isthmus-envoy, run `make envoy`, which fetches it, or name an Envoy %s: %w", path, Version, err)
	}
	if st.IsDir() || st.Mode().Perm()&0o111 == 0 {
		return fmt.Errorf("%s is not an executable file: run `make envoy`, or name an Envoy %s", path, Version)
	}
	return nil
}

var versionText = regexp.MustCompile(`version: [0-9a-f]+/([^/]+)/`)

// VersionOf asks a binary for its version.
func VersionOf(ctx context.Context, path string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("ask %s for its version: %w", path, err)
	}
	m := versionText.FindSubmatch(out)
	if m == nil {
		return "", errors.New(path + " is not Envoy: `--version` answers something else")
	}
	return string(m[1]), nil
}
