package layers

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// once says where alone something may be called, so that it is done right in one place.
var once = map[string]map[string]string{
	"os.WriteFile(": {
		"internal/durable/durable.go":                   "says that it does not outlast a loss of power",
		"internal/stories/stories.go":                   "test data, made into a folder that is thrown away",
		"internal/demo/world.go":                        "tokens and logs of a demo, which a loss of power ends anyhow",
		"internal/demo/settings.go":                     "configuration of a demo, written as an editor does",
		"internal/demo/lab/netns.go":                    "settings of the kernel",
		"internal/node/cgroup/cgrouptest/cgrouptest.go": "settings of the kernel",
		"internal/demo/lab/network.go":                  "settings of the kernel",
		"internal/state/pgtest/pgtest.go":               "a password of a database that is thrown away",
		"internal/node/envoyproc/trial.go":              "a bootstrap that is tried once and thrown away",
	},
	"os.Rename(": {
		"internal/durable/durable.go":     "syncs the file and its folder",
		"internal/state/sqlite/open.go":   "a database, synced by SQLite, and its folder",
		"internal/demo/settings.go":       "configuration of a demo, written as an editor does",
		"internal/node/accesslog/file.go": "a log that turns: its content was written long before",
	},
	`"unix", `: {
		"internal/unixsocket/unixsocket.go": "checks the path, its folders and the mode",
		"internal/state/pgtest/wire.go":     "a socket of tests, in a folder that is thrown away",
	},
}

// Files are replaced by durable.WriteFile, which outlasts a loss of power, and sockets opened by unixsocket.Listen,
// which refuses names and folders of others.
func TestFilesAndSocketsAreMadeInOnePlace(t *testing.T) {
	used := map[string]bool{}
	err := filepath.WalkDir(filepath.Join(root, "internal"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name := filepath.ToSlash(strings.TrimPrefix(path, root+"/"))
		for call, places := range once {
			listens := call != `"unix", ` || strings.Contains(string(text), "Listen(")
			if !strings.Contains(string(text), call) || !listens {
				continue
			}
			used[call+name] = true
			if places[name] == "" {
				t.Errorf("%s uses %s…): use internal/durable or internal/unixsocket, or say in this test why not", name,
					call)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for call, places := range once {
		for name := range places {
			if !used[call+name] {
				t.Errorf("%s does not use %s…) any more: take it out of this test", name, call)
			}
		}
	}
}
