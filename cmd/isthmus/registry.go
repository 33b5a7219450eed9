package main

import (
	"cmp"
	"slices"

	"isthmus.dev/isthmus/internal/node"
	"isthmus.dev/isthmus/internal/snapshot"
)

// registryOf returns what agents with these settings would register, with all workloads ready.
func registryOf(files []string) (*snapshot.Registry, error) {
	r := &snapshot.Registry{}
	for _, name := range files {
		cfg, err := node.LoadConfig(name)
		if err != nil {
			return nil, err
		}
		r.Nodes = append(r.Nodes, snapshot.Node{Name: cfg.Name, Role: cfg.Role(), Gateway: cfg.GatewayInfo()})
		for _, w := range cfg.Workloads {
			r.Workloads = append(r.Workloads, w.Registered(cfg.Name, w.Netns, cfg.Mode == node.Sidecar, true))
		}
	}
	slices.SortFunc(r.Nodes, func(a, b snapshot.Node) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(r.Workloads, func(a, b snapshot.Workload) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return r, nil
}
