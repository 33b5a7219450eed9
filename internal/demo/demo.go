// Package demo brings up two meshes on one machine, a card-data zone and a shop, with real Envoys in real network
// namespaces, and on request drives them through everything that Isthmus promises.
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

// DefaultRunDir holds everything that the demo writes, while it runs.
const DefaultRunDir = "/run/isthmus/demo"

// Options of a demo. The zero value is the demo that stays up until its context ends.
type Options struct {
	// Tour runs the tour instead of staying up; Run then fails unless every step held.
	Tour bool
	// Stay keeps the demo up after the tour.
	Stay bool
	// Soak keeps the peered demo under load and disturbs it for so long; Run then fails unless every request succeeded
	// and nothing grew.
	Soak time.Duration
	// Separate leaves the two meshes unpeered; the tour begins so in any case.
	Separate bool
	// Isthmus, Samples and Envoy are binaries. Default: this executable, isthmus-samples beside it, and what the node
	// agent finds.
	Isthmus, Samples, Envoy string
	// RunDir is made and removed. Default: DefaultRunDir.
	RunDir string
	// KeepLogs, when set, is a folder to which the logs are copied before all is removed.
	KeepLogs string
	// Prefix of the namespaces' names. Default: DefaultPrefix.
	Prefix string
	// Out receives the progress, the tour and the closing words.
	Out io.Writer
}

// Run builds the demo, runs what the options ask for, and removes all that it made.
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

// complete fills in defaults and refuses what cannot work before anything is made.
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

// printer writes progress, each line with the seconds since the start.
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
