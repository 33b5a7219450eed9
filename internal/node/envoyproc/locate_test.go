package envoyproc

import (
	"os"
	"path/filepath"
	"testing"
)

// Wherever Envoy is found, its path holds in every folder: a configuration is tried in one of its own.
func TestLocateIsAbsolute(t *testing.T) {
	if Executable(Packaged) == nil {
		t.Logf("the packaged Envoy, %s, comes first", Packaged)
	}
	t.Chdir(t.TempDir())
	t.Setenv("PATH", t.TempDir())
	binary := filepath.Join("cache", "envoy-"+Version, "envoy")
	if err := os.MkdirAll(filepath.Dir(binary), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(binary, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, named := range []string{"", binary} {
		t.Setenv("ISTHMUS_ENVOY", named)
		got, err := Locate("cache")
		if err != nil || !filepath.IsAbs(got) {
			t.Errorf("with ISTHMUS_ENVOY=%q Envoy is at %q, %v", named, got, err)
		}
	}
}
