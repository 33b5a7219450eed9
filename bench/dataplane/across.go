package main

import (
	"context"
	"fmt"
	"path/filepath"

	"isthmus.dev/isthmus/bench/meshlab"
)

// gatewayValues fill the template of a gateway, beside pairValues.
type gatewayValues struct {
	ClientID, ClientsRoot  string // who alone may connect, and the file of the roots that vouch for it
	Next, NextID, NextRoot string // where it sends calls on, to whom, and likewise
	Asserts                bool   // in a header who calls, as its certificate says; else that header is believed
	Host, HostBehind       string // for whom calls come, and what that is called behind the gateway
	Log                    string // the file that gets a line a call
}

// fourByHand is the smallest set of Envoys that does what ours do between two meshes, each with roots of its own: the
// caller's, the two gateways, in the namespaces of ours, and the callee's.
type fourByHand struct {
	offset   int
	hardened bool
}

const (
	exportedHost = "callee.peer.example" // what a service is called between the meshes
	farHost      = "far.default.svc.cluster.local"
)

func (h fourByHand) start(_ context.Context, env *environment) (*running, error) {
	dir := env.lab.Dir()
	caller, callee := env.lab.Place(heldCaller), env.lab.Place(heldFarCallee)
	gateway, peerGateway := env.lab.Place(alpha+"/gateway"), env.lab.Place(beta+"/gateway")
	r := &running{
		caller: caller, host: func(protocol) string { return handWrittenHost },
		target: func(p protocol) string { return port(meshlab.Virtual, p.Outbound+h.offset) },
	}
	log := func(of string) string { return filepath.Join(dir, fmt.Sprintf("hand-%d-%s-calls.log", h.offset, of)) }
	values := pairValues{
		HTTPAtCaller: true, OwnConnections: true, Offset: h.offset, Protocols: env.protocols, Dir: dir,
		Hardened: h.hardened,
	}

	atCaller := values
	atCaller.AtCaller, atCaller.Host = true, handWrittenHost
	atCaller.Callee, atCaller.CalleeID = gateway.Address.String(), gatewayID

	own := values
	own.CallerID = callerID
	own.Gateway = &gatewayValues{
		ClientID: callerID, ClientsRoot: filepath.Join(dir, "root.pem"), Asserts: true,
		Next: betaOuter, NextID: peerGatewayID, NextRoot: filepath.Join(peerDir(dir), "root.pem"),
		Host: handWrittenHost, HostBehind: exportedHost, Log: log("gateway"),
	}

	peers := values
	peers.Dir, peers.CallerID = peerDir(dir), callerID
	peers.Gateway = &gatewayValues{
		ClientID: gatewayID, ClientsRoot: filepath.Join(dir, "root.pem"),
		Next: callee.Address.String(), NextID: peerCalleeID, NextRoot: filepath.Join(peerDir(dir), "root.pem"),
		Host: exportedHost, HostBehind: farHost, Log: log("peer-gateway"),
	}

	atCallee := values
	atCallee.AtCallee, atCallee.Dir, atCallee.Host = true, peerDir(dir), farHost
	atCallee.CallerID, atCallee.Asserted = peerGatewayID, callerID

	for _, e := range []struct {
		side   string
		at     meshlab.Place
		values pairValues
	}{
		{"caller", caller, atCaller},
		{"gateway", gateway, own},
		{"peer-gateway", peerGateway, peers},
		{"callee", callee, atCallee},
	} {
		config, err := pairConfig(e.values)
		if err != nil {
			return nil, err
		}
		if err := startByHand(env, r, fmt.Sprintf("hand-%d-%s", h.offset, e.side), e.at, config); err != nil {
			return nil, err
		}
	}
	return r, nil
}
