// Package demo runs two meshes on one machine, a card-data zone and a shop, with real Envoys in real network
// namespaces. On request it tests everything that Isthmus promises.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"isthmus.dev/isthmus/internal/demo/lab"
)

// DefaultRunDir holds everything that a running demo writes.
const DefaultRunDir = "/run/isthmus/demo"

// Options of a demo. With the zero value it runs until its context is done.
type Options struct {
	// Tour runs the tour and then ends. Run returns an error unless every step succeeded.
	Tour bool
	// Stay keeps the demo up after the tour.
	Stay bool
	// Soak keeps the peered demo under load for this long while disturbing it. Run returns an error unless every
	// request succeeded and no process grew.
	Soak time.Duration
	// Separate leaves the two meshes unpeered. The tour always starts so.
	Separate bool
	// Isthmus, Samples and Envoy are paths of binaries. Default: this executable, isthmus-samples beside it, and the
	// Envoy that the node agent finds.
	Isthmus, Samples, Envoy string
	// RunDir is created and removed. Default: DefaultRunDir.
	RunDir string
	// KeepLogs, if set, is a folder to copy the logs to before everything is removed.
	KeepLogs string
	// Prefix of the names of network namespaces. Default: DefaultPrefix.
	Prefix string
	// Out receives progress, the tour and the closing text.
	Out io.Writer
}

// Run builds the demo, does what the options ask for, and removes everything.
func Run(ctx context.Context, o Options) (err error) {
	o, err = o.complete()
	if err != nil {
		return err
	}
	say := printer{out: o.Out, start: time.Now()}
	p := newPlan(o.Prefix)
	say.step("building %d network namespaces", len(p.network().Namespaces()))
	l, removed, err := lab.Open(lab.Config{Prefix: p.prefix, Dir: o.RunDir, Network: p.network()})
	for _, r := range removed {
		say.note("left by an earlier run and removed: %s", r)
	}
	if err != nil {
		return explain(err)
	}
	w := &world{plan: p, lab: l, files: files{l.Dir()}, options: o}
	defer func() {
		say.step("removing everything")
		err = errors.Join(err, w.keepLogs(), l.Close())
	}()
	if err := checkKernel(p.stranger()); err != nil {
		return err
	}
	if err := w.up(ctx, say); err != nil {
		return w.withLogs(err)
	}
	say.step("both meshes are up")
	switch {
	case o.Tour:
		if err := w.tour(ctx, say, promises); err != nil || !o.Stay {
			return err
		}
	case o.Soak > 0:
		if err := w.connectMeshes(ctx, say); err != nil {
			return w.withLogs(err)
		}
		return w.soak(ctx, say, o.Soak)
	case !o.Separate:
		if err := w.connectMeshes(ctx, say); err != nil {
			return w.withLogs(err)
		}
	}
	say.text(closingText(o))
	return w.watch(ctx, say)
}

// complete fills in defaults and validates the options before anything is created.
func (o Options) complete() (Options, error) {
	if os.Geteuid() != 0 {
		return o, errors.New("the demo makes network namespaces, and that needs root: run it as `sudo isthmus demo`")
	}
	if o.RunDir == "" {
		o.RunDir = DefaultRunDir
	}
	if o.Prefix == "" {
		o.Prefix = DefaultPrefix
	}
	if o.Out == nil {
		o.Out = io.Discard
	}
	if o.Isthmus == "" {
		self, err := os.Executable()
		if err != nil {
			return o, fmt.Errorf("find this executable: %w", err)
		}
		o.Isthmus = self
	}
	if o.Samples == "" {
		o.Samples = filepath.Join(filepath.Dir(o.Isthmus), "isthmus-samples")
	}
	if _, err := exec.LookPath(o.Samples); err != nil {
		return o,
			fmt.Errorf("the demo's programs are not at %s: run `make build`, which makes both binaries, or name the file with --samples", o.Samples)
	}
	err := o.findEnvoy()
	return o, err
}

// printer writes progress lines with the seconds since the start.
type printer struct {
	out   io.Writer
	start time.Time
}

func (p printer) step(format string, args ...any) {
	fmt.Fprintf(p.out, "%5.1fs  %s\n", time.Since(p.start).Seconds(), fmt.Sprintf(format, args...))
}

func (p printer) note(format string, args ...any) {
	fmt.Fprintf(p.out, "        %s\n", fmt.Sprintf(format, args...))
}

func (p printer) text(s string) { fmt.Fprint(p.out, s) }
