package cli

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"isthmus.dev/isthmus/internal/config"
)

func readDocs(t *testing.T) string {
	t.Helper()
	raw, err := os.ReadFile("../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestEveryCommandIsDocumented(t *testing.T) {
	docs := readDocs(t)
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		if cmd.Short == "" {
			t.Errorf("%s has no short description", cmd.CommandPath())
		}
		if !cmd.HasSubCommands() && !strings.Contains(docs, "`"+cmd.CommandPath()+"`") {
			t.Errorf("docs/cli.md does not name `%s`", cmd.CommandPath())
		}
		for _, c := range cmd.Commands() {
			walk(c)
		}
	}
	walk((&app{}).root())
}

// TestEveryFlagIsDocumented: the page names each flag, if not for each command that has it.
func TestEveryFlagIsDocumented(t *testing.T) {
	docs, flag := readDocs(t), regexp.MustCompile(`(?m)^ +(-[a-z])?(?:, )?(--[a-z-]+)`)
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		for _, m := range flag.FindAllStringSubmatch(cmd.Flags().FlagUsages(), -1) {
			short, long := m[1], m[2]
			named := regexp.MustCompile(long+`([^a-z-]|$)`).MatchString(docs) || short != "" &&
				strings.Contains(docs, "`"+short+" ")
			if long != "--help" && !named {
				t.Errorf("docs/cli.md does not name %s of %s", long, cmd.CommandPath())
			}
		}
		for _, c := range cmd.Commands() {
			walk(c)
		}
	}
	walk((&app{}).root())
}

// TestDocumentedSettingsLoad loads the page's example: a key that is gone, or misspelt, is refused.
func TestDocumentedSettingsLoad(t *testing.T) {
	_, rest, _ := strings.Cut(readDocs(t), "```yaml\n")
	example, _, ok := strings.Cut(rest, "```")
	if !ok {
		t.Fatal("docs/cli.md has no YAML example")
	}
	path := filepath.Join(t.TempDir(), "control.yaml")
	if err := os.WriteFile(path, []byte(example), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Complete(); err != nil {
		t.Error(err)
	}
	if c.MetricsAddress != ":15020" || c.CA.IntermediateKey == "" || len(c.Names.IPs) != 1 {
		t.Errorf("the example does not show every setting: %+v", c)
	}
}
