package demo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/demo/lab"
	"isthmus.dev/isthmus/samples/probe"
)

// disturbance is one thing that goes wrong, or changes, while requests flow.
type disturbance struct {
	name string
	kind int // which requests may fail
	do   func(context.Context, *world) error
}

// The kinds of stretches.
const (
	calm  = iota // none may fail
	loss         // a source dies: few may fail, and no WebSocket outlasts its server
	rough        // an Envoy is killed, and with it what it had in hand
	kinds
)

// maxLost is how many requests of one customer may fail when a source dies, at some 20 a second; of the demo's own load,
// which sends some 150, in proportion.
const maxLost = 3

// disturbances happen in turn, again and again; a rotation of both roots goes on through them. Payments are those of
// cards, and those of retail stand by.
var disturbances = []disturbance{
	{"new roots for both meshes", calm, beginRotations},
	{"payments of cards killed", loss, func(ctx context.Context, w *world) error {
		return w.lose(ctx, func() error { return w.restart(ctx, w.cards(), "payments", 3*time.Second) })
	}},
	{"payments of retail killed, which stand by", calm, func(ctx context.Context, w *world) error {
		return w.restart(ctx, w.retail(), "standby", time.Second)
	}},
	{"control plane of cards killed", calm, func(ctx context.Context, w *world) error { return w.killControl(ctx, w.cards()) }},
	{"endpoints change 200 times", calm, churnEndpoints},
	{"agent of retail's node killed", calm, func(ctx context.Context, w *world) error {
		return w.killAgent(ctx, w.retail(), nodeName(w.retail()), "node")
	}},
	{"Envoy of cards' gateway killed", rough, func(ctx context.Context, w *world) error { return w.killEnvoy(ctx, w.plan.gatewayNetns(w.cards())) }},
	{"policies change 50 times", calm, churnPolicies},
	{"the wire to cards dark", loss, func(ctx context.Context, w *world) error {
		return w.lose(ctx, func() error { return w.dark(ctx, 4*time.Second) })
	}},
	{"control plane of retail killed", calm, func(ctx context.Context, w *world) error { return w.killControl(ctx, w.retail()) }},
	{"agent of cards' gateway killed", calm, func(ctx context.Context, w *world) error {
		return w.killAgent(ctx, w.cards(), gatewayName(w.cards()), "gateway")
	}},
	{"Envoy of retail's node killed", rough, func(ctx context.Context, w *world) error { return w.killEnvoy(ctx, w.plan.hostNetns(w.retail())) }},
	{"agent of cards' node killed", calm, func(ctx context.Context, w *world) error {
		return w.killAgent(ctx, w.cards(), nodeName(w.cards()), "node")
	}},
	{"agent of retail's gateway killed", calm, func(ctx context.Context, w *world) error {
		return w.killAgent(ctx, w.retail(), gatewayName(w.retail()), "gateway")
	}},
	{"the old roots of both meshes withdrawn", calm, endRotations},
}

// soak keeps the demo under load with short-lived certificates and disturbs it for as long as it is told. It fails when a
// request failed while no Envoy was killed, or when a process grew beyond bounds.
func (w *world) soak(ctx context.Context, say printer, length time.Duration) error {
	for _, m := range w.plan.meshes {
		if err := w.setTTL(m, "5m", shortLife); err != nil {
			return err
		}
	}
	customers, err := w.customers(ctx)
	if err != nil {
		return err
	}
	if err := w.standBy(); err != nil {
		return err
	}
	t := &traffic{w: w, customers: customers}
	defer t.end()
	// One round first: what every process needs to do its work is no leak.
	if err := t.round(ctx, say, time.Time{}); err != nil {
		return err
	}
	before, err := w.footprints(ctx)
	if err != nil {
		return err
	}
	for end := time.Now().Add(length); time.Now().Before(end); {
		if err := t.round(ctx, say, end); err != nil {
			return err
		}
	}
	if err := pause(ctx, 3*time.Second); err != nil {
		return err
	}
	if err := t.count(ctx, calm); err != nil {
		return err
	}
	after, err := w.footprints(ctx)
	if err != nil {
		return err
	}
	say.text("\n" + t.table())
	return errors.Join(t.verdict(), reportGrowth(say, before, after))
}

// traffic is the load in stretches. What an Envoy has in hand ends with it, so a stretch in which one is killed counts apart.
type traffic struct {
	w         *world
	customers []customer
	loads     []*ongoing // none between two stretches; the demo's own, then a customer each
	counts    [][kinds]probe.Result
	losses    int           // of a source
	slowest   time.Duration // of all kills of an Envoy, until everything was as it should be
}

// name says whose load the nth is.
func (t *traffic) name(n int) string {
	if n == 0 {
		return "go"
	}
	return t.customers[n-1].name
}

// table says how each fared.
func (t *traffic) table() string {
	var b strings.Builder
	for n, c := range t.counts {
		fmt.Fprintf(&b, "  %-7s %8d %6d %8d %6d %8d %6d\n", t.name(n), c[calm].Requests, c[calm].Failures, c[loss].Requests,
			c[loss].Failures, c[rough].Requests, c[rough].Failures)
	}
	return "  customer requests failed; as a source died: failed; as an Envoy was killed: failed\n" + b.String() + fmt.Sprintf("After an Envoy was killed all was answered again within %.1f s.\n\n", t.slowest.Seconds())
}

// round disturbs once in every way, or until end.
func (t *traffic) round(ctx context.Context, say printer, end time.Time) error {
	for _, d := range disturbances {
		if !end.IsZero() && time.Now().After(end) {
			return nil
		}
		say.step("%s", d.name)
		if err := t.through(ctx, d); err != nil {
			return fmt.Errorf("soak: %s: %w", d.name, err)
		}
	}
	return nil
}

func (t *traffic) through(ctx context.Context, d disturbance) error {
	if d.kind != calm {
		if err := t.count(ctx, calm); err != nil {
			return err
		}
	}
	if err := t.begin(); err != nil {
		return err
	}
	began := time.Now()
	if err := d.do(ctx, t.w); err != nil {
		return err
	}
	switch d.kind {
	case calm:
		return pause(ctx, 2*time.Second)
	case loss:
		t.losses++
	case rough:
		t.slowest = max(t.slowest, time.Since(began))
	}
	return t.count(ctx, d.kind)
}

func (t *traffic) begin() error {
	if len(t.loads) > 0 {
		return nil
	}
	own, err := t.w.load()
	if err != nil {
		return err
	}
	t.loads = append(t.loads, own)
	for _, c := range t.customers {
		o, err := t.w.launch(c.command, c.in)
		if err != nil {
			return err
		}
		t.loads = append(t.loads, o)
	}
	return nil
}

// count ends the stretch, if there is one, and adds up what came of it.
func (t *traffic) count(ctx context.Context, kind int) error {
	defer t.end()
	for _, o := range t.loads {
		o.stop()
	}
	if t.counts == nil {
		t.counts = make([][kinds]probe.Result, 1+len(t.customers))
	}
	for n, o := range t.loads {
		r, err := o.next(ctx, 4*tryTimeout)
		if err != nil {
			return fmt.Errorf("%s: %w", t.name(n), err)
		}
		sum := &t.counts[n][kind]
		sum.Requests += r.Requests
		sum.Failures += r.Failures
		if sum.FirstFailure == "" {
			sum.FirstFailure = r.FirstFailure
		}
	}
	return nil
}

func (t *traffic) end() {
	for _, o := range t.loads {
		o.end()
	}
	t.loads = nil
}

func (t *traffic) verdict() error {
	var errs []error
	for n, c := range t.counts {
		switch {
		case c[calm].Requests == 0:
			errs = append(errs, fmt.Errorf("soak: %s sent no request", t.name(n)))
		case c[calm].Failures > 0:
			errs = append(errs, fmt.Errorf("soak: %d of %d requests of %s failed, the first: %s", c[calm].Failures,
				c[calm].Requests, t.name(n), c[calm].FirstFailure))
		}
		bound := t.losses * maxLost
		if n == 0 {
			bound *= 8
		}
		if lost := c[loss]; lost.Failures > bound && t.name(n) != socketCustomer {
			errs = append(errs, fmt.Errorf("soak: %d of %d requests of %s failed as a source died, %d times, the first: %s",
				lost.Failures, lost.Requests, t.name(n), t.losses, lost.FirstFailure))
		}
	}
	return errors.Join(errs...)
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

func (w *world) killControl(ctx context.Context, m mesh) error {
	w.process(controlName(m)).Kill()
	if err := pause(ctx, time.Second); err != nil {
		return err
	}
	if err := w.startControl(ctx, m); err != nil {
		return err
	}
	return until(ctx, 30*time.Second, 50*time.Millisecond, func(ctx context.Context) error { return w.ready(ctx, m) })
}

func (w *world) killAgent(ctx context.Context, m mesh, name, verb string) error {
	w.process(name).Kill()
	if err := pause(ctx, time.Second); err != nil {
		return err
	}
	namespace := w.plan.hostNetns(m)
	if verb == "gateway" {
		namespace = w.plan.gatewayNetns(m)
	}
	_, err := w.start(lab.Command{
		Name: name, Namespace: namespace, Path: w.options.Isthmus, Args: []string{verb, "--config", w.files.mesh(m.name, verb+".yaml")},
	})
	if err != nil {
		return err
	}
	return until(ctx, 30*time.Second, 50*time.Millisecond, func(ctx context.Context) error { return w.ready(ctx, m) })
}

// killEnvoy ends an Envoy. Within ten seconds there must be another, and payments must answer.
func (w *world) killEnvoy(ctx context.Context, netns string) error {
	pid := envoyIn(netns)
	if pid == 0 {
		return fmt.Errorf("no Envoy runs in %s", netns)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("end Envoy %d: %w", pid, err)
	}
	err := until(ctx, 10*time.Second, 20*time.Millisecond, func(context.Context) error {
		if now := envoyIn(netns); now == pid || now == 0 {
			return fmt.Errorf("no Envoy took the place of %d", pid)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return w.servedBy(ctx, "payments@cards", 10*time.Second)
}

// standBy has the payments of retail stand in for those of cards.
func (w *world) standBy() error {
	text, err := readFile(w.files.federation(w.retail().name), "import-payments-failover.yaml")
	if err != nil {
		return err
	}
	swapped := strings.NewReplacer("priority: 0", "priority: 1", "priority: 1", "priority: 0").Replace(string(text))
	return writeFile(w.files.mesh(w.retail().name, "config", "import-payments.yaml"), []byte(swapped))
}

// restart ends a workload's program without a word, and starts it again after a while.
func (w *world) restart(ctx context.Context, m mesh, name string, after time.Duration) error {
	_, wl, _ := w.plan.find(name)
	w.process(programName(m, wl)).Kill()
	if err := pause(ctx, after); err != nil {
		return err
	}
	return w.startProgram(m, wl)
}

// dark has nothing arrive at cards' gateway from the other mesh, nor the other way, and says so to nobody.
func (w *world) dark(ctx context.Context, length time.Duration) error {
	device := "v-" + w.cards().name
	if err := lab.Cut(w.plan.link(), device, true); err != nil {
		return err
	}
	return errors.Join(pause(ctx, length), lab.Cut(w.plan.link(), device, false))
}

// lose has a source of payments go and return: meanwhile and afterwards there are answers, in the end that source's.
func (w *world) lose(ctx context.Context, cause func() error) error {
	if err := pause(ctx, time.Second); err != nil {
		return err
	}
	if err := cause(); err != nil {
		return err
	}
	return w.servedBy(ctx, "payments@cards", 20*time.Second)
}

// beginRotations has both meshes replace their roots.
func beginRotations(ctx context.Context, w *world) error {
	for _, m := range w.plan.meshes {
		if _, err := w.rotate(ctx, m, adminapi.CARotateRequest{}); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) rotate(ctx context.Context, m mesh, r adminapi.CARotateRequest) (*adminapi.CAStatusResponse, error) {
	return call[adminapi.CARotateRequest, adminapi.CAStatusResponse](ctx, w.admin(m), "CARotate", &r)
}

// endRotations waits until both meshes have done so.
func endRotations(ctx context.Context, w *world) error {
	for _, m := range w.plan.meshes {
		if err := until(ctx, 90*time.Second, 200*time.Millisecond, func(ctx context.Context) error { return w.rotated(ctx, m) }); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) rotated(ctx context.Context, m mesh) error {
	st, err := call[adminapi.Empty, adminapi.CAStatusResponse](ctx, w.admin(m), "CAStatus", &adminapi.Empty{})
	switch {
	case err != nil:
		return err
	case st.Rotation == nil:
		return fmt.Errorf("%s knows of no rotation", m.name)
	case st.Rotation.Step == "done" && len(st.Roots) == 1:
		return nil
	}
	waits := st.Rotation.Waits
	left := slices.DeleteFunc(slices.Clone(waits), func(c adminapi.CAWait) bool { return c.What == "administrator" && c.Name == soakAdmin })
	if len(waits) > 0 && len(left) == 0 { // the soak makes new credentials whenever it needs some
		_, err = w.rotate(ctx, m, adminapi.CARotateRequest{Force: true})
	}
	return errors.Join(fmt.Errorf("the rotation of %s is at %s and waits for %v %s", m.name, st.Rotation.Step, left, st.Rotation.Error), err)
}

// churnEndpoints moves a server of another service about: everything hears of it but the load's way.
func churnEndpoints(ctx context.Context, w *world) error {
	m := w.retail()
	for n := range 200 {
		text := fmt.Sprintf(`apiVersion: v1
kind: Service
metadata: {name: churn, namespace: default}
spec:
  selector: {app: churn}
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: churn, namespace: default}
spec: {address: 10.72.0.%d, labels: {app: churn}, serviceAccount: churn}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: churn, namespace: default}
spec:
  selector: {matchLabels: {app: churn}}
  rules: [{from: [{source: {principals: [retail.example/ns/default/sa/storefront]}}]}]
`, 100+n%100)
		if err := writeFile(w.files.mesh(m.name, "config", "churn.yaml"), []byte(text)); err != nil {
			return err
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// churnPolicies changes a policy on the load's way, to and fro, without ever forbidding it.
func churnPolicies(ctx context.Context, w *world) error {
	m := w.cards()
	for n := range 50 {
		text := fmt.Sprintf(`apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: soak, namespace: default}
spec:
  action: DENY
  selector: {matchLabels: {app: payments}}
  rules: [{to: [{operation: {paths: ["/forbidden/%d"]}}]}]
`, n)
		if err := writeFile(w.files.mesh(m.name, "config", "soak.yaml"), []byte(text)); err != nil {
			return err
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}
