package cli

import (
	"strings"

	"github.com/spf13/cobra"
)

// helpWidth is the narrowest terminal that people use.
const helpWidth = 80

// foldHelp has all help fit helpWidth. Examples are broken by their authors.
func foldHelp(root *cobra.Command) {
	cobra.AddTemplateFunc("fold", fold)
	root.SetUsageTemplate(strings.ReplaceAll(root.UsageTemplate(), "Flags.FlagUsages |",
		"Flags.FlagUsagesWrapped 80 |"))
	root.SetHelpTemplate(strings.ReplaceAll(root.HelpTemplate(), "{{. | trim", "{{. | fold | trim"))
}

// fold breaks paragraphs, which empty lines divide, into lines of helpWidth.
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
