package cli

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"isthmus.dev/isthmus/internal/version"
)

// build is the output of `isthmus version`.
type build struct {
	Version  string `json:"version"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
	Envoy    string `json:"envoy"`
}

func (a *app) versionCmd() *cobra.Command {
	return a.printer(&cobra.Command{
		Use:     "version",
		Example: "  isthmus version",
		Short:   "Show the build of Isthmus",
		Args:    noArgs,
		RunE: func(*cobra.Command, []string) error {
			b := build{
				Version: version.String(), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH,
				Envoy: "1.40",
			}
			return a.print(b, func(when) string {
				return fmt.Sprintf("isthmus %s (%s, %s, for Envoy %s)\n", b.Version, b.Go, b.Platform, b.Envoy)
			})
		},
	})
}
