package main

import (
	"bytes"
	"context"
	"embed"
	"fmt"
	"os"
	"path/filepath"
	"text/template"

	"isthmus.dev/isthmus/bench/meshlab"
)

//go:embed pair/*.tmpl
var pairTemplates embed.FS

// pairValues fill the templates of one Envoy.
type pairValues struct {
	AtCaller, AtCallee bool // which sides it is
	HTTPAtCaller       bool // else the caller's side passes bytes on
	// between the two sides for each call of HTTP/1.1 that is under way, else one for all
	OwnConnections           bool
	CallerNetns, CalleeNetns string // where its sides live; empty is where the Envoy runs
	Offset                   int    // added to all its ports
	Protocols                []protocol
	Dir, Callee, Host        string
	CallerID, CalleeID       string
	HandOver                 string // inside one Envoy: by way of "tls" or "plain", else over the network
	// checks, limits and retries as ours have, and a log of what fails or is refused
	Hardened bool
	Asserted string         // at a callee that is called by a gateway, CallerID: whom that must assert
	Gateway  *gatewayValues // nil for all but gateways
}

// MultiplexedFor reports whether the two sides speak HTTP/2 to each other, so that one connection carries all calls.
func (v pairValues) MultiplexedFor(p protocol) bool {
	return p.HTTP && v.HTTPAtCaller && (p.H2 || !v.OwnConnections)
}

// handWritten is the smallest set of Envoys that does the job: mutual TLS 1.3, exact identities at both ends, hardened
// paths.
type handWritten struct {
	offset       int
	httpAtCaller bool
	own          bool // connections: see pairValues.OwnConnections
	one          bool // one Envoy for both sides, else one for each
	handOver     string
	hardened     bool
	captured     bool // called at a virtual address, in namespaces whose connections the kernel tracks
}

const handWrittenHost = "callee.default.svc.cluster.local"

// start starts its Envoys; they run until the lab is closed.
func (h handWritten) start(_ context.Context, env *environment) (*running, error) {
	callerAt, calleeAt := env.lab.Place(freeCaller), env.lab.Place(freeCallee)
	at := "127.0.0.1"
	if h.captured {
		at, callerAt, calleeAt = meshlab.Virtual, env.lab.Place(heldCaller), env.lab.Place(heldCallee)
	}
	values := pairValues{
		HTTPAtCaller: h.httpAtCaller, OwnConnections: h.own, Offset: h.offset, Protocols: env.protocols,
		Dir: env.lab.Dir(), Callee: calleeAt.Address.String(), Host: handWrittenHost, CallerID: callerID,
		CalleeID: calleeID, HandOver: h.handOver, Hardened: h.hardened,
	}
	r := &running{
		caller: callerAt, host: func(protocol) string { return handWrittenHost },
		target: func(p protocol) string { return port(at, p.Outbound+h.offset) },
	}
	if h.one {
		values.AtCaller, values.AtCallee = true, true
		values.CallerNetns, values.CalleeNetns = callerAt.Netns(), calleeAt.Netns()
		return r, h.add(env, r, "both", env.lab.Place(alpha+"/host"), values)
	}
	caller, callee := values, values
	caller.AtCaller, callee.AtCallee = true, true
	if err := h.add(env, r, "caller", callerAt, caller); err != nil {
		return nil, err
	}
	return r, h.add(env, r, "callee", calleeAt, callee)
}

func (h handWritten) add(env *environment, r *running, side string, at meshlab.Place, values pairValues) error {
	config, err := pairConfig(values)
	if err != nil {
		return err
	}
	return startByHand(env, r, fmt.Sprintf("hand-%d-%s", h.offset, side), at, config)
}

// startByHand starts an Envoy with this bootstrap.
func startByHand(env *environment, r *running, name string, at meshlab.Place, config []byte) error {
	file := filepath.Join(env.lab.Dir(), name+".yaml")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	pid, err := env.lab.Start(name, at, env.envoy, "-c", file, "--concurrency", fmt.Sprint(env.concurrency),
		"--disable-hot-restart", "--log-level", "warning", "--drain-time-s", "1")
	r.envoys = append(r.envoys, pid)
	return err
}

// pairConfig is the bootstrap of one Envoy.
func pairConfig(values pairValues) ([]byte, error) {
	t, err := template.New("").Funcs(template.FuncMap{"add": func(a,
		b int,
	) int {
		return a + b
	}}).ParseFS(pairTemplates, "pair/*.tmpl")
	if err != nil {
		return nil, fmt.Errorf("read the templates: %w", err)
	}
	var b bytes.Buffer
	if err := t.ExecuteTemplate(&b, "envoy.yaml.tmpl", values); err != nil {
		return nil, fmt.Errorf("fill the templates: %w", err)
	}
	return b.Bytes(), nil
}
