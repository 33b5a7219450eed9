package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/retry"
	"isthmus.dev/isthmus/samples/probe"
)

// shortLife is the certificate lifetime during the renewal test, the shortest that a Mesh allows.
const shortLife = "10s"

// renewedUnderLoad shortens the certificate lifetime of both meshes under load, and waits until every workload and
// gateway on the path has renewed twice.
func renewedUnderLoad(ctx context.Context, w *world) (_ string, err error) {
	load, err := w.load()
	if err != nil {
		return "", err
	}
	defer load.end()
	first, err := w.serials(ctx)
	if err != nil {
		return "", err
	}
	for _, m := range w.plan.meshes {
		if err := w.setTTL(m, "5m", shortLife); err != nil {
			return "", err
		}
	}
	// The first change results from the new lifetime, the second is a regular renewal.
	second, err := w.allChanged(ctx, first)
	if err == nil {
		_, err = w.allChanged(ctx, second)
	}
	for _, m := range w.plan.meshes {
		err = errors.Join(err, w.setTTL(m, shortLife, "5m"))
	}
	if err != nil {
		return "", err
	}
	if err := retry.Until(ctx, 15*time.Second, 100*time.Millisecond, w.longLived); err != nil {
		return "", err
	}
	r, err := load.finish(ctx)
	if err != nil {
		return "", err
	}
	if r.Failures > 0 || r.Requests == 0 {
		return "", fmt.Errorf("%d of %d requests failed, the first: %s", r.Failures, r.Requests, r.FirstFailure())
	}
	return fmt.Sprintf("%d certificates renewed twice, %d requests, 0 errors", len(first), r.Requests), nil
}

// load sends about 150 requests a second as the storefront.
func (w *world) load() (*ongoing, error) {
	return w.begin("storefront", probe.Request{Load: &probe.Load{
		HTTP: probe.HTTP{Method: "GET", URL: headersURL, Timeout: tryTimeout}, Workers: 4, Pause: 20 * time.Millisecond,
	}})
}

func (o *ongoing) finish(ctx context.Context) (probe.Result, error) {
	o.stop()
	return o.next(ctx, 2*tryTimeout)
}

// serials returns the serial numbers of the certificates on the path: storefront, both gateways and payments.
func (w *world) serials(ctx context.Context) (map[string]string, error) {
	onTheWay := map[string][]string{
		"retail": {"spiffe://retail.example/ns/default/sa/storefront", gatewayID},
		"cards": {
			"spiffe://cards.example/ns/default/sa/payments",
			"spiffe://cards.example/ns/isthmus-system/sa/" + gatewayServiceAccount,
		},
	}
	out := map[string]string{}
	for _, m := range w.plan.meshes {
		certs, err := w.admin(m).certs(ctx)
		if err != nil {
			return nil, err
		}
		for _, id := range onTheWay[m.name] {
			c, ok := certs[id]
			if !ok {
				return nil, fmt.Errorf("%s reports no certificate of %s", m.name, id)
			}
			out[id] = c.Serial
		}
	}
	return out, nil
}

func (w *world) allChanged(ctx context.Context, from map[string]string) (now map[string]string, err error) {
	err = retry.Until(ctx, 25*time.Second, 100*time.Millisecond, func(ctx context.Context) error {
		now, err = w.serials(ctx)
		if err != nil {
			return err
		}
		for id, serial := range from {
			if now[id] == serial {
				return fmt.Errorf("%s still has the certificate with serial %s", id, serial)
			}
		}
		return nil
	})
	return now, err
}

// longLived returns an error naming a certificate that does not have the demo's usual lifetime again.
func (w *world) longLived(ctx context.Context) error {
	for _, m := range w.plan.meshes {
		certs, err := w.admin(m).certs(ctx)
		if err != nil {
			return err
		}
		for id, c := range certs {
			if strings.Contains(id, "/ns/") && time.Until(c.NotAfter) < time.Minute {
				return fmt.Errorf("%s still has a short-lived certificate", id)
			}
		}
	}
	return nil
}

func (w *world) setTTL(m mesh, from, to string) error {
	b, err := readFile(w.files.config(m.name), "mesh.yaml")
	if err != nil {
		return err
	}
	was, is := []byte("certificateTTL: "+from), []byte("certificateTTL: "+to)
	if !bytes.Contains(b, was) {
		return fmt.Errorf("the mesh.yaml of %s has no %q any more", m.name, was)
	}
	return writeFile(w.files.mesh(m.name, "config", "mesh.yaml"), bytes.Replace(b, was, is, 1))
}

// controlPlanesKilled kills both control planes under load and starts them again.
func controlPlanesKilled(ctx context.Context, w *world) (string, error) {
	load, err := w.load()
	if err != nil {
		return "", err
	}
	defer load.end()
	for _, m := range w.plan.meshes {
		w.process(controlName(m)).Kill()
	}
	for _, m := range w.plan.meshes {
		if _, err := w.admin(m).status(ctx); err == nil {
			return "", fmt.Errorf("the control plane of %s answers although it was killed", m.name)
		}
	}
	// Make a new connection all the way, and run load for a while, without control planes.
	if err := w.servedBy(ctx, "payments@cards", tryTimeout); err != nil {
		return "", fmt.Errorf("without control planes: %w", err)
	}
	select {
	case <-time.After(1500 * time.Millisecond): // the duration itself is under test
	case <-ctx.Done():
		return "", ctx.Err()
	}
	start := time.Now()
	for _, m := range w.plan.meshes {
		if err := w.startControl(ctx, m); err != nil {
			return "", err
		}
	}
	for _, m := range w.plan.meshes {
		if err := retry.Until(ctx, 20*time.Second, 50*time.Millisecond,
			func(ctx context.Context) error { return w.ready(ctx, m) }); err != nil {
			return "", err
		}
	}
	back := time.Since(start)
	r, err := load.finish(ctx)
	if err != nil {
		return "", err
	}
	if r.Failures > 0 || r.Requests == 0 {
		return "", fmt.Errorf("%d of %d requests failed, the first: %s", r.Failures, r.Requests, r.FirstFailure())
	}
	return fmt.Sprintf("%d requests, 0 errors; back in step after %.1f s", r.Requests, back.Seconds()), nil
}

// mostFailed is how many calls may fail when a server of an import dies.
const mostFailed = 3

// failover prefers the local standby to the peer, kills it under load, and starts it again.
func failover(ctx context.Context, w *world) (_ string, err error) {
	retail := w.retail()
	_, standby, _ := w.plan.find("standby")
	if err := w.apply(retail, "import-payments-failover.yaml", "import-payments.yaml"); err != nil {
		return "", err
	}
	if err := w.servedBy(ctx, "standby@retail", 12*time.Second); err != nil {
		return "", err
	}
	load, err := w.load()
	if err != nil {
		return "", err
	}
	defer load.end()
	var seen []string
	for _, turn := range []struct {
		what string
		do   func() error
		by   string
	}{
		{"killed", func() error { w.process(programName(retail, standby)).Kill(); return nil }, "payments@cards"},
		{"back", func() error { return w.startProgram(retail, standby) }, "standby@retail"},
	} {
		if err := pause(ctx, time.Second); err != nil { // load on the present server is itself under test
			return "", err
		}
		if err := turn.do(); err != nil {
			return "", err
		}
		start := time.Now()
		if err := w.servedBy(ctx, turn.by, 12*time.Second); err != nil {
			return "", fmt.Errorf("%s: %w", turn.what, err)
		}
		seen = append(seen, fmt.Sprintf("%s: %s after %.1f s", turn.what, turn.by, time.Since(start).Seconds()))
	}
	r, err := load.finish(ctx)
	if err != nil {
		return "", err
	}
	if r.Failures > mostFailed || r.ServedBy["payments@cards"] == 0 || r.ServedBy["standby@retail"] == 0 {
		return "", fmt.Errorf("%d of %d requests failed, served by %v; the first failure: %s", r.Failures, r.Requests,
			r.ServedBy, r.FirstFailure())
	}
	// Restore the import for the next steps.
	if err := w.apply(retail, "import-payments.yaml", "import-payments.yaml"); err != nil {
		return "", err
	}
	if err := w.servedBy(ctx, "payments@cards", 12*time.Second); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d requests, %d failed; %s", r.Requests, r.Failures, strings.Join(seen, "; ")), nil
}

// suspended suspends the peering while a long response is in transit.
func suspended(ctx context.Context, w *world) (string, error) {
	live, err := w.begin("storefront", probe.Request{Watch: &probe.HTTP{Method: "GET", URL: watchURL}})
	if err != nil {
		return "", err
	}
	defer live.end()
	r, err := live.next(ctx, tryTimeout)
	if err != nil {
		return "", fmt.Errorf("open a live connection: %w", err)
	}
	if !r.Began || r.Status != 200 {
		return "", fmt.Errorf("open a live connection: %s", outcome(r))
	}
	start := time.Now()
	if _, err := call[adminapi.PeerRequest, adminapi.Empty](ctx, w.admin(w.cards()), "PeerSuspend",
		&adminapi.PeerRequest{Peer: "retail"}); err != nil {
		return "", err
	}
	cut, err := live.next(ctx, 10*time.Second)
	if err != nil {
		return "", fmt.Errorf("the live connection goes on: %w", err)
	}
	took := cut.Time.Sub(start)
	if took > 5*time.Second {
		return "", fmt.Errorf("cut only after %.1f s", took.Seconds())
	}
	after, err := w.get("storefront", "GET", headersURL, nil)
	if err != nil {
		return "", err
	}
	if after.Status == 200 || after.Headers["served-by"] != "" {
		return "", errors.New("a new request still crosses: " + outcome(after))
	}
	return fmt.Sprintf("cut after %.1f s (%s); new request: %s", took.Seconds(), cut.Error, outcome(after)), nil
}

// resumed resumes the peering.
func resumed(ctx context.Context, w *world) (string, error) {
	start := time.Now()
	if _, err := call[adminapi.PeerRequest, adminapi.Empty](ctx, w.admin(w.cards()), "PeerResume",
		&adminapi.PeerRequest{Peer: "retail"}); err != nil {
		return "", err
	}
	if err := w.servedBy(ctx, "payments@cards", 15*time.Second); err != nil {
		return "", err
	}
	return fmt.Sprintf("200 from payments@cards after %.1f s", time.Since(start).Seconds()), nil
}
