package ca_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/ca"
	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/state"
	"isthmus.dev/isthmus/internal/state/sqlite"
)

// roots are the fingerprints of the trusted roots, the signing one first.
func roots(t *testing.T, a *ca.Authority) []string {
	t.Helper()
	var out []string
	for block, rest := pem.Decode(a.Roots()); block != nil; block, rest = pem.Decode(rest) {
		out = append(out, spiffe.Fingerprint(must(x509.ParseCertificate(block.Bytes))))
	}
	return out
}

// trusted reports whether a chain leads to one of the roots that an authority names.
func trusted(a *ca.Authority, now time.Time, chain []*x509.Certificate) bool {
	pool, between := x509.NewCertPool(), x509.NewCertPool()
	pool.AppendCertsFromPEM(a.Roots())
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{Roots: pool, Intermediates: between, CurrentTime: now})
	return err == nil
}

// recorded is what the state says of a certificate.
func recorded(t *testing.T, b *bench, leaf *x509.Certificate) state.Cert {
	t.Helper()
	for _, c := range must(b.db.Certs(t.Context(), state.CertFilter{})) {
		if c.Fingerprint == spiffe.Fingerprint(leaf) {
			return c
		}
	}
	t.Fatal("the certificate is not on record")
	return state.Cert{}
}

func blobNames(t *testing.T, b *bench) string {
	t.Helper()
	var names []string
	for _, name := range []string{"intermediate", "root", "root-cross", "root-next", "root-old"} {
		blob, err := b.db.Blob(t.Context(), name)
		if errors.Is(err, state.ErrNotFound) {
			continue
		}
		check(t, err)
		if len(blob.Key) == 0 {
			name += " (no key)"
		}
		names = append(names, name)
	}
	return strings.Join(names, ", ")
}

// Each step, before and after a crash: who is trusted, who signs, what is kept, and that certificates of both roots
// serve for as long as both are trusted.
func TestRotationStepByStep(t *testing.T) {
	b := newBench(t)
	a := b.start(t)
	before := sign(t, a, pay, 24*time.Hour)
	first := a.RootFingerprint()
	if r := a.Rotation(); r.InProgress() || r.Step != "" {
		t.Fatalf("a new mesh rotates: %+v", r)
	}
	b.set(noon.Add(time.Minute))
	begun := must(a.BeginRotation(t.Context()))
	second := begun.New
	if begun.Old != first || second == first || !begun.Began.Equal(noon.Add(time.Minute)) {
		t.Fatalf("begun: %+v", begun)
	}
	for i, step := range []struct {
		step   ca.Step
		roots  []string
		kept   string
		oldOK  bool
		passed []string // on the way to this step
	}{
		{ca.Prepared, []string{first, second}, "intermediate, root, root-next", true, nil},
		{ca.Distributed, []string{first, second}, "intermediate, root, root-next", true, []string{"proxy n9"}},
		{
			ca.Activated,
			[]string{second, first},
			"intermediate, root, root-cross (no key), root-old (no key)", true,
			nil,
		},
		{
			ca.Drained,
			[]string{second, first},
			"intermediate, root, root-cross (no key), root-old (no key)", true,
			[]string{"node n8"},
		},
		{ca.Done, []string{second}, "intermediate, root", false, nil},
	} {
		if i > 0 {
			b.set(b.now().Add(time.Minute))
			previous := a.Rotation().Step
			must(a.AdvanceRotation(t.Context(), previous, step.passed))
			if r := must(a.AdvanceRotation(t.Context(), previous, nil)); r.Step != step.step {
				t.Fatalf("the same step again led to %s", r.Step)
			}
		}
		for name, now := range map[string]*ca.Authority{"going on": a, "after a crash": b.start(t)} {
			if r := now.Rotation(); r.Step != step.step || r.Old != first || r.New != second ||
				!r.Since.Equal(b.now()) {
				t.Fatalf("%s, %s: %+v", step.step, name, r)
			}
			if got := roots(t, now); !slices.Equal(got, step.roots) {
				t.Errorf("%s, %s: roots %v, want %v", step.step, name, got, step.roots)
			}
			leaf := sign(t, now, pay, time.Hour)
			if !trusted(now, b.now(), leaf) || trusted(now, b.now(), before) != step.oldOK {
				t.Errorf("%s, %s: new leaf trusted %v, the leaf from before %v", step.step, name,
					trusted(now, b.now(), leaf), trusted(now, b.now(), before))
			}
			if c := recorded(t, b, leaf[0]); c.Root != step.roots[0] {
				t.Errorf("%s, %s: the leaf is recorded under %s", step.step, name, c.Root)
			}
		}
		if got := blobNames(t, b); got != step.kept {
			t.Errorf("%s: kept are %s, want %s", step.step, got, step.kept)
		}
	}
	if got := a.Rotation().Passed; !slices.Equal(got, []string{"proxy n9", "node n8"}) {
		t.Errorf("passed over: %v", got)
	}
	if r := must(a.BeginRotation(t.Context())); r.Step != ca.Prepared || r.Old != second {
		t.Errorf("the next rotation: %+v", r)
	}
}

// What each kind of client makes of the control plane's certificate, at each step.
func TestRotationKeepsTheControlPlaneReachable(t *testing.T) {
	b := newBench(t)
	a := b.start(t)
	control := spiffe.Control(cards)
	server := must(a.Identity(t.Context(), control))
	node := must(a.Identity(t.Context(), must(spiffe.Node(cards, "n1"))))
	oldRoots, nodeBefore := a.Roots(), staticCert(t, node)
	pinned := a.RootFingerprint()
	r := must(a.BeginRotation(t.Context()))
	for ; ; r = must(a.AdvanceRotation(t.Context(), r.Step, nil)) {
		withOld := r.Step != ca.Done
		for _, c := range []struct {
			name   string
			client ca.Client
			pin    string
			want   bool
		}{
			{
				name:   "one that knows the roots of now",
				client: ca.Client{Roots: a.Roots, Certificate: node.GetClientCertificate}, want: true,
			},
			{
				name:   "one left behind, with its old certificate",
				client: ca.Client{Roots: func() []byte { return oldRoots }, Certificate: nodeBefore}, want: withOld,
			},
			{name: "a token of before", pin: pinned, want: withOld},
			{name: "a token of now", pin: a.RootFingerprint(), want: true},
		} {
			c.client.Expect, c.client.Now = []spiffe.ID{control}, b.now
			conf := c.client.TLS()
			if c.pin != "" {
				conf = ca.PinnedTLS(c.pin, b.now)
			}
			_, _, serverErr, clientErr := handshake(t, a.ServerTLS(server), conf)
			if err := errors.Join(serverErr, clientErr); (err == nil) != c.want {
				t.Errorf("%s: %s: %v", r.Step, c.name, err)
			}
		}
		if r.Step == ca.Done {
			return
		}
	}
}

// faulty fails at chosen moments: before or after it has done what it was asked.
type faulty struct {
	ca.Store
	before, after, blob bool
}

var errFault = errors.New("disk full")

func (f *faulty) PutRotation(
	ctx context.Context, from string, r state.Rotation, put []state.Blob, remove []string,
) error {
	if f.before {
		return errFault
	}
	err := f.Store.PutRotation(ctx, from, r, put, remove)
	if f.after && err == nil {
		return errFault
	}
	return err
}

func (f *faulty) PutBlob(ctx context.Context, b state.Blob, was []byte) error {
	if f.blob {
		return errFault
	}
	return f.Store.PutBlob(ctx, b, was)
}

// A step that fails, before it is written, after, or halfway, is taken up by the next attempt and by the next start,
// and everything issued meanwhile is good.
func TestRotationSurvivesFaults(t *testing.T) {
	for _, c := range []struct {
		name string
		set  func(*faulty, bool)
	}{
		{"before it is written", func(f *faulty, on bool) { f.before = on }},
		{"after it is written", func(f *faulty, on bool) { f.after = on }},
		{"when the new signing certificate is kept", func(f *faulty, on bool) { f.blob = on }},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			f := &faulty{Store: b.db}
			cfg := b.config()
			cfg.Store = f
			a := must(ca.New(t.Context(), cfg))
			must(a.BeginRotation(t.Context()))
			for range 30 {
				from := a.Rotation().Step
				if from == ca.Done {
					break
				}
				c.set(f, true)
				_, err := a.AdvanceRotation(t.Context(), from, nil)
				if err != nil && !errors.Is(err, errFault) {
					t.Fatal(err)
				}
				chain, err := a.Sign(t.Context(), csr(t, nil), pay, time.Hour, n1)
				if err != nil && !errors.Is(err, errFault) {
					t.Fatal(err)
				}
				if err == nil && !trusted(a, b.now(), parse(t, chain)) {
					t.Fatalf("at %s a leaf leads to no trusted root", from)
				}
				c.set(f, false)
				restarted := b.start(t) // as after a crash
				if leaf := sign(t, restarted, pay, time.Hour); !trusted(restarted, b.now(), leaf) {
					t.Fatalf("after a crash at %s a leaf leads to no trusted root", from)
				}
				must(a.AdvanceRotation(t.Context(), from, nil))
			}
			if r := a.Rotation(); r.Step != ca.Done || len(roots(t, a)) != 1 {
				t.Errorf("ended at %s with %d roots", r.Step, len(roots(t, a)))
			}
		})
	}
}

// Several control planes take the same steps at once: each is taken once, all sign under one certificate, and whoever
// has not heard of a step yet issues nothing under a root that signs no more.
func TestRotationOfSeveral(t *testing.T) {
	b := newBench(t)
	all := make([]*ca.Authority, 4)
	for i := range all {
		all[i] = b.start(t)
	}
	must(all[0].BeginRotation(t.Context()))
	for _, step := range []ca.Step{ca.Prepared, ca.Distributed, ca.Activated, ca.Drained} {
		for _, a := range all {
			check(t, a.Reload(t.Context()))
			if got := a.Rotation().Step; got != step {
				t.Fatalf("one is at %s, not at %s", got, step)
			}
		}
		var wg sync.WaitGroup
		for _, a := range all[1:] {
			wg.Go(func() {
				if _, err := a.AdvanceRotation(t.Context(), step, nil); err != nil &&
					!errors.Is(err, state.ErrSuperseded) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		leaf := sign(t, all[0], pay, time.Hour) // it has not heard of the step
		newest := b.start(t)
		if !trusted(newest, b.now(), leaf) || !leaf[1].Equal(sign(t, newest, pay, time.Hour)[1]) {
			t.Errorf("after %s: a leaf of one that lagged is trusted: %t; or there are two signing certificates", step,
				trusted(newest, b.now(), leaf))
		}
	}
	if got := b.start(t).Rotation().Step; got != ca.Done {
		t.Errorf("ended at %s", got)
	}
}

func TestRotationRefusals(t *testing.T) {
	b := newBench(t)
	a := b.start(t)
	if _, err := a.AdvanceRotation(t.Context(), ca.Prepared, nil); err == nil {
		t.Error("a rotation that never began went on")
	}
	if _, err := a.CancelRotation(t.Context()); !errors.Is(err, ca.ErrNotRotating) {
		t.Errorf("cancelled out of nothing: %v", err)
	}
	first := a.RootFingerprint()
	must(a.BeginRotation(t.Context()))
	if _, err := a.BeginRotation(t.Context()); !errors.Is(err, ca.ErrRotating) {
		t.Errorf("begun twice: %v", err)
	}
	if r := must(a.AdvanceRotation(t.Context(), ca.Activated, nil)); r.Step != ca.Prepared {
		t.Errorf("steps were left out: %s", r.Step)
	}
	must(a.CancelRotation(t.Context()))
	if got := roots(t, b.start(t)); !slices.Equal(got, []string{first}) || blobNames(t, b) != "intermediate, root" {
		t.Errorf("after cancelling: %v, %s", got, blobNames(t, b))
	}
	r := must(a.BeginRotation(t.Context()))
	for r.Step != ca.Activated {
		r = must(a.AdvanceRotation(t.Context(), r.Step, nil))
	}
	if _, err := a.CancelRotation(t.Context()); err == nil ||
		!strings.Contains(err.Error(), "the new root signs already") {
		t.Errorf("cancelled too late: %v", err)
	}

	o := newOperatorCA(t, false)
	o.write(t)
	other := newBench(t)
	cfg := other.config()
	cfg.Operator = o.files
	_, err := must(ca.New(t.Context(), cfg)).BeginRotation(t.Context())
	if !errors.Is(err, ca.ErrOperatorRoot) || !strings.Contains(err.Error(), "renew the intermediate under it") {
		t.Errorf("operator's root: %v", err)
	}
}

// The old root's private key, encrypted as it was, is nowhere in the state file when the rotation is over.
func TestRotationDestroysTheOldKey(t *testing.T) {
	b := newBench(t)
	a := b.start(t)
	sealed := must(b.db.Blob(t.Context(), "root")).Key
	r := must(a.BeginRotation(t.Context()))
	for r.Step != ca.Done {
		r = must(a.AdvanceRotation(t.Context(), r.Step, nil))
		if r.Step == ca.Activated && len(must(b.db.Blob(t.Context(), "root-old")).Key) > 0 {
			t.Error("the new root signs, and the old one's key is kept")
		}
	}
	again := must(b.db.Blob(t.Context(), "root")).Key
	check(t, b.db.Close())
	raw := must(os.ReadFile(filepath.Join(b.dir, "state.db")))
	if bytes.Contains(raw, sealed) || !bytes.Contains(raw, again) {
		t.Errorf("old key in the file: %v; new key: %v", bytes.Contains(raw, sealed), bytes.Contains(raw, again))
	}
	b.db = must(sqlite.Open(t.Context(), filepath.Join(b.dir, "state.db"))) // for the cleanup
}
