package demo

import (
	"path/filepath"

	"isthmus.dev/isthmus/internal/node/envoyproc"
)

// findEnvoy finds the Envoy binary for the agents, or returns an error.
func (o *Options) findEnvoy() (err error) {
	if o.Envoy == "" {
		// The source tree's cache: bin/isthmus lies beside .cache.
		o.Envoy, err = envoyproc.Locate(filepath.Join(filepath.Dir(filepath.Dir(o.Isthmus)), ".cache"))
		return err
	}
	if o.Envoy, err = filepath.Abs(o.Envoy); err != nil {
		return err
	}
	return envoyproc.Executable(o.Envoy)
}
