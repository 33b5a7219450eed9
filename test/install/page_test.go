//go:build e2e

package install

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var block = regexp.MustCompile("(?ms)^```(sh|text)([a-z ]*)\n(.*?)^```$")

// secureCopy stands for scp: what the one host copies lies where the other one takes it.
const secureCopy = `scp() { cp "$1" /srv/packages/copied; chmod 600 /srv/packages/copied; echo "$2" >/srv/packages/copied.to; }
`

// runPage runs a page's commands in their order, each block on the hosts that it names, and looks for the lines of each
// block of text in what the commands before it said.
func runPage(t *testing.T, page, packages string, hosts ...*host) {
	t.Helper()
	runPageWith(t, page, packages, nil, hosts...)
}

// runPageWith does more after some of the blocks of commands, which count from 1.
func runPageWith(t *testing.T, page, packages string, after map[int]func(), hosts ...*host) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../docs", page))
	must(t, err)
	blocks := block.FindAllStringSubmatch(string(text), -1)
	if len(blocks) == 0 {
		t.Fatalf("%s has no commands", page)
	}
	said, n := "", 0
	for _, b := range blocks {
		if b[1] == "text" {
			for line := range strings.Lines(b[3]) {
				if !strings.Contains(said, strings.TrimSpace(line)) {
					t.Errorf("%s promises %q, and the commands said:\n%s", page, strings.TrimSpace(line), said)
				}
			}
			continue
		}
		names := strings.Fields(b[2])
		if len(names) == 0 {
			t.Errorf("%s: a block names no host:\n%s", page, b[3])
		}
		for _, h := range hosts {
			for _, name := range names {
				if h.name == name {
					said = h.run(secureCopy + b[3])
					deliver(t, packages, hosts)
				}
			}
		}
		if n++; after[n] != nil {
			after[n]()
		}
	}
}

// deliver puts what a host copied where it is meant to be.
func deliver(t *testing.T, packages string, hosts []*host) {
	t.Helper()
	to, err := os.ReadFile(filepath.Join(packages, "copied.to"))
	if os.IsNotExist(err) {
		return
	}
	must(t, err)
	must(t, os.Remove(filepath.Join(packages, "copied.to")))
	addr, path, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(string(to)), "root@"), ":")
	if !ok {
		t.Fatalf("scp to %q", to)
	}
	for _, h := range hosts {
		if strings.Contains(h.run("ip -4 -o address show dev eth0"), " "+addr+"/") {
			h.run("mv /srv/packages/copied " + path)
			return
		}
	}
	t.Fatalf("scp to %s, which is nobody's address", addr)
}
