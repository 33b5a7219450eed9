package cli

import (
	"bytes"
	"context"
	"testing"

	"github.com/spf13/cobra"
)

// Every command's help fits a terminal of 80 columns, and shows how the command is used.
func TestHelp(t *testing.T) {
	commands := 0
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		commands++
		t.Run(c.CommandPath(), func(t *testing.T) {
			var out bytes.Buffer
			c.SetOut(&out)
			if err := c.Help(); err != nil {
				t.Fatal(err)
			}
			fits(t, out.String())
			if !c.HasSubCommands() && c.Parent().Name() != "completion" && c.Name() != "help" &&
				c.Name() != "completion" && c.Example == "" {
				t.Error("no example")
			}
		})
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	a := &app{}
	root := a.root()
	root.SetContext(context.Background())
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	walk(root)
	if commands < 40 {
		t.Errorf("looked at %d commands", commands)
	}
}

func TestFold(t *testing.T) {
	same(t, fold("one two\nthree\n\n"+"a "+
		"0123456789012345678901234567890123456789 0123456789012345678901234567890123456 b c"),
		"one two three\n\na 0123456789012345678901234567890123456789 0123456789012345678901234567890123456\nb c")
}
