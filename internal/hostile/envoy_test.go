package hostile

import (
	"errors"
	"io"
	"log/slog"
	"sync"
	"testing"

	"isthmus.dev/isthmus/internal/envoy"
	"isthmus.dev/isthmus/internal/node/envoyproc"
)

// judge asks an Envoy whether it could run with what comes of objects.
type judge struct {
	t   *testing.T
	try func(rs []*envoy.Resource) error

	mu       sync.Mutex // guards culprits
	culprits int
}

// maxCulprits ends a search that has found enough.
const maxCulprits = 25

func newJudge(t *testing.T, binary string) *judge {
	s := envoyproc.New(envoyproc.Config{
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Binary: binary, RunDir: t.TempDir(), Concurrency: 1,
		Bootstrap: envoyproc.Bootstrap{Node: "judge", MaxConnections: 1000, MaxHeapBytes: 1 << 30},
	})
	return &judge{t: t, try: func(rs []*envoy.Resource) error { return s.Try(t.Context(), rs) }}
}

// batch is how many objects one Envoy is asked about, unless it says no.
const batch = 40

func (j *judge) judge(objects []object) {
	for len(objects) > 0 && !j.enough() {
		n := min(batch, len(objects))
		if objects[0].kind == "Mesh" {
			n = 1 // there is one in a mesh
		}
		j.search(objects[:n])
		objects = objects[n:]
	}
}

// search finds the culprits among objects by halves.
func (j *judge) search(objects []object) {
	err := j.try(resources(j.t, objects, 1))
	var no envoyproc.Refusal
	switch {
	case err == nil || j.enough():
	case !errors.As(err, &no):
		j.t.Errorf("Envoy cannot be asked about %d objects, the first %s: %v", len(objects), objects[0], err)
	case len(objects) > 1:
		j.search(objects[:len(objects)/2])
		j.search(objects[len(objects)/2:])
	default:
		j.mu.Lock()
		j.culprits++
		j.mu.Unlock()
		j.t.Errorf("Envoy does not take what is accepted: %s\n%s", objects[0], clip(no.Error()))
	}
}

func (j *judge) enough() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.culprits >= maxCulprits
}
