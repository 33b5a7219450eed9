package cli

import (
	"strings"

	"github.com/spf13/cobra"
)

// helpWidth is the width of the narrowest common terminal.
const helpWidth = 80

// foldHelp wraps all help texts at helpWidth, except examples.
func foldHelp(root *cobra.Command) {
	cobra.AddTemplateFunc("fold", fold)
	root.SetUsageTemplate(strings.ReplaceAll(root.UsageTemplate(), "Flags.FlagUsages |",
		"Flags.FlagUsagesWrapped 80 |"))
	root.SetHelpTemplate(strings.ReplaceAll(root.HelpTemplate(), "{{. | trim", "{{. | fold | trim"))
}

// fold wraps paragraphs, which are separated by empty lines, at helpWidth.
func fold(text string) string {
	var out strings.Builder
	for n, paragraph := range strings.Split(text, "\n\n") {
		if n > 0 {
			out.WriteString("\n\n")
		}
		out.WriteString(wrap(paragraph, helpWidth))
	}
	return out.String()
}
