package demo

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// step tests one promise.
type step struct {
	what     string
	expected string
	// needed steps must succeed for the rest to be tried.
	needed bool
	// try returns what was observed. Its error says what was observed instead.
	try func(context.Context, *world) (seen string, err error)
}

// promises are the steps of the tour in order. Each leaves the demo in the state that the next one expects.
var promises = []step{
	{what: "nothing reachable before peering", expected: "no name answers, no door opens", try: nothingReachable},
	{what: "peering in two commands", expected: "both sides show the same fingerprints", needed: true, try: peer},
	{what: "export and import", expected: "offered by cards, taken by retail", needed: true, try: exportAndImport},
	{
		what: "storefront crosses both gateways", expected: "201 under the local name", needed: true,
		try: storefrontCrosses,
	},
	{what: "a WebSocket across the boundary", expected: "messages both ways", try: webSocketCrosses},
	{what: "catalogue refused", expected: "403, not an allowed caller", try: catalogueRefused},
	{what: "tokens refused", expected: "not exported, not a byte", try: tokensRefused},
	{what: "forbidden method and path", expected: "403 at the boundary", try: forbiddenRefused},
	{what: "plaintext refused", expected: "no answer from the service", try: plaintextRefused},
	{what: "direct address of the other mesh", expected: "unreachable", try: directUnreachable},
	{what: "impostor with the right names", expected: "refused at the handshake", try: impostorRefused},
	{what: "right peer, wrong SNI", expected: "refused at the handshake", try: wrongSNIRefused},
	{what: "certificates renewed under load", expected: "new serials, 0 errors", try: renewedUnderLoad},
	{what: "both control planes killed", expected: "traffic goes on, they return", try: controlPlanesKilled},
	{what: "failover under load", expected: "to the peer and back, at most 3 fail", try: failover},
	{what: "suspended", expected: "live connection cut within 5 s", try: suspended},
	{what: "resumed", expected: "requests cross again", try: resumed},
}

const (
	stepLimit = 40 * time.Second
	lineForm  = "%2s %s %6s  %-33s %-39s %s\n"
)

// tour runs the steps in order and prints a line for each.
func (w *world) tour(ctx context.Context, say printer, steps []step) error {
	start := time.Now()
	say.text("\n" + fmt.Sprintf(lineForm, "", " ", "took", "what", "expected", "seen"))
	held, missing := 0, ""
	for i, s := range steps {
		if ctx.Err() != nil {
			return errors.New("interrupted")
		}
		mark, seen, began := "√", "", time.Now()
		if missing != "" {
			mark, seen = "–", "not tried: it needs "+missing
		} else {
			var err error
			seen, err = w.step(ctx, s)
			if err != nil {
				mark, seen = "×", err.Error()
				if s.needed {
					missing = fmt.Sprintf("step %d", i+1)
				}
			} else {
				held++
			}
		}
		say.text(fmt.Sprintf(lineForm, fmt.Sprint(i+1), mark, fmt.Sprintf("%.1f s", time.Since(began).Seconds()),
			s.what, s.expected, oneLine(seen)))
	}
	say.text(fmt.Sprintf("\n%d of %d held in %.1f s.\n\n", held, len(steps), time.Since(start).Seconds()))
	if held < len(steps) {
		return w.withLogs(fmt.Errorf("the tour: %d of %d steps did not hold", len(steps)-held, len(steps)))
	}
	return nil
}

// connectMeshes runs the tour's steps of peering, export and import, and makes a first purchase.
func (w *world) connectMeshes(ctx context.Context, say printer) error {
	for _, s := range promises {
		if !s.needed {
			continue
		}
		seen, err := w.step(ctx, s)
		if err != nil {
			return fmt.Errorf("%s: %w", s.what, err)
		}
		say.step("%s: %s", s.what, oneLine(seen))
	}
	return nil
}

func (w *world) step(ctx context.Context, s step) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, stepLimit)
	defer cancel()
	return s.try(ctx, w)
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// The two meshes.
func (w *world) cards() mesh  { return w.plan.mesh("cards") }
func (w *world) retail() mesh { return w.plan.mesh("retail") }

// apply copies a file from a mesh's federation folder to the folder that its control plane watches, like the cp command
// in the closing text.
func (w *world) apply(m mesh, file, as string) error {
	b, err := readFile(w.files.federation(m.name), file)
	if err != nil {
		return err
	}
	return writeFile(w.files.mesh(m.name, "config", as), b)
}
