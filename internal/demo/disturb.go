package demo

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"isthmus.dev/isthmus/internal/demo/lab"
	"isthmus.dev/isthmus/internal/retry"
)

// disturbance is a failure or change under load.
type disturbance struct {
	name string
	kind int // which requests may fail
	do   func(context.Context, *world) error
}

// Kinds of disturbances.
const (
	calm  = iota // no request may fail
	loss         // a server dies: a few requests may fail, and WebSockets to it end
	rough        // an Envoy is killed, and its requests in progress fail
	kinds
)

// maxLost is how many requests of a customer, which sends about 20 a second, may fail when a server dies. The limit for
// the demo's own load, about 150 a second, is in proportion.
const maxLost = 3

// disturbances happen in turn, repeatedly, during a rotation of both roots. Payments are served by cards, with retail
// as the standby.
var disturbances = []disturbance{
	{"new roots for both meshes", calm, beginRotations},
	{"payments of cards killed", loss, func(ctx context.Context, w *world) error {
		return w.lose(ctx, func() error { return w.restart(ctx, w.cards(), "payments", 3*time.Second) })
	}},
	{"payments of retail killed, which stand by", calm, func(ctx context.Context, w *world) error {
		return w.restart(ctx, w.retail(), "standby", time.Second)
	}},
	{
		"control plane of cards killed", calm,
		func(ctx context.Context, w *world) error { return w.killControl(ctx, w.cards()) },
	},
	{"endpoints change 200 times", calm, churnEndpoints},
	{"agent of retail's node killed", calm, func(ctx context.Context, w *world) error {
		return w.killAgent(ctx, w.retail(), nodeName(w.retail()), "node")
	}},
	{
		"Envoy of cards' gateway killed", rough,
		func(ctx context.Context, w *world) error { return w.killEnvoy(ctx, w.plan.gatewayNetns(w.cards())) },
	},
	{"policies change 50 times", calm, churnPolicies},
	{"the wire to cards dark", loss, func(ctx context.Context, w *world) error {
		return w.lose(ctx, func() error { return w.blackhole(ctx, 4*time.Second) })
	}},
	{
		"control plane of retail killed", calm,
		func(ctx context.Context, w *world) error { return w.killControl(ctx, w.retail()) },
	},
	{"agent of cards' gateway killed", calm, func(ctx context.Context, w *world) error {
		return w.killAgent(ctx, w.cards(), gatewayName(w.cards()), "gateway")
	}},
	{
		"Envoy of retail's node killed", rough,
		func(ctx context.Context, w *world) error { return w.killEnvoy(ctx, w.plan.hostNetns(w.retail())) },
	},
	{"agent of cards' node killed", calm, func(ctx context.Context, w *world) error {
		return w.killAgent(ctx, w.cards(), nodeName(w.cards()), "node")
	}},
	{"agent of retail's gateway killed", calm, func(ctx context.Context, w *world) error {
		return w.killAgent(ctx, w.retail(), gatewayName(w.retail()), "gateway")
	}},
	{"the old roots of both meshes withdrawn", calm, endRotations},
}

func (w *world) killControl(ctx context.Context, m mesh) error {
	w.process(controlName(m)).Kill()
	if err := pause(ctx, time.Second); err != nil {
		return err
	}
	if err := w.startControl(ctx, m); err != nil {
		return err
	}
	return retry.Until(ctx, 30*time.Second, 50*time.Millisecond,
		func(ctx context.Context) error { return w.ready(ctx, m) })
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
		Name: name, Namespace: namespace, Path: w.options.Isthmus,
		Args: []string{verb, "--config", w.files.mesh(m.name, verb+".yaml")},
	})
	if err != nil {
		return err
	}
	return retry.Until(ctx, 30*time.Second, 50*time.Millisecond,
		func(ctx context.Context) error { return w.ready(ctx, m) })
}

// killEnvoy kills an Envoy. Within ten seconds it must be replaced and payments must answer.
func (w *world) killEnvoy(ctx context.Context, netns string) error {
	pid := envoyIn(netns)
	if pid == 0 {
		return fmt.Errorf("no Envoy runs in %s", netns)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("end Envoy %d: %w", pid, err)
	}
	err := retry.Until(ctx, 10*time.Second, 20*time.Millisecond, func(context.Context) error {
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

// standBy makes retail's payments the standby of cards' payments.
func (w *world) standBy() error {
	text, err := readFile(w.files.federation(w.retail().name), "import-payments-failover.yaml")
	if err != nil {
		return err
	}
	swapped := strings.NewReplacer("priority: 0", "priority: 1", "priority: 1", "priority: 0").Replace(string(text))
	return writeFile(w.files.mesh(w.retail().name, "config", "import-payments.yaml"), []byte(swapped))
}

// restart kills a workload's program and starts it again after a while.
func (w *world) restart(ctx context.Context, m mesh, name string, after time.Duration) error {
	_, wl, _ := w.plan.find(name)
	w.process(programName(m, wl)).Kill()
	if err := pause(ctx, after); err != nil {
		return err
	}
	return w.startProgram(m, wl)
}

// blackhole drops all packets between cards' gateway and the other mesh, silently and in both directions.
func (w *world) blackhole(ctx context.Context, length time.Duration) error {
	device := "v-" + w.cards().name
	if err := lab.Cut(w.plan.link(), device, true); err != nil {
		return err
	}
	return errors.Join(pause(ctx, length), lab.Cut(w.plan.link(), device, false))
}

// lose takes a server of payments away and brings it back. Calls must be answered throughout, and by that server in the
// end.
func (w *world) lose(ctx context.Context, cause func() error) error {
	if err := pause(ctx, time.Second); err != nil {
		return err
	}
	if err := cause(); err != nil {
		return err
	}
	return w.servedBy(ctx, "payments@cards", 20*time.Second)
}
