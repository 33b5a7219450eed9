package demo

import (
	"path/filepath"

	"isthmus.dev/isthmus/internal/node/envoyproc"
)

// findEnvoy finds the Envoy that the agents will run and refuses to go on without one.
func (o *Options) findEnvoy() (err error) {
	if o.Envoy == "" {
		// The cache of the source folder: bin/isthmus lies beside .cache.
		o.Envoy, err = envoyproc.Locate(filepath.Join(filepath.Dir(filepath.Dir(o.Isthmus)), ".cache"))
		return err
	}
	if o.Envoy, err = filepath.Abs(o.Envoy); err != nil {
		return err
	}
	return envoyproc.Executable(o.Envoy)
}
