package main

import (
	"context"
	"fmt"
	"log/slog"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/cli"
	"isthmus.dev/isthmus/internal/demo"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/meshd/spine"
	"isthmus.dev/isthmus/internal/node"
	"isthmus.dev/isthmus/internal/version"
)

// verbs connects the command line with the parts that it starts.
func verbs() cli.Verbs {
	return cli.Verbs{Control: runControl, Agent: runAgent, Render: render, Demo: demo.Command}
}

const nextSettings = "docs/cli.md lists every setting"

func runAgent(ctx context.Context, a cli.Agent, log *slog.Logger) error {
	cfg, err := node.LoadConfig(a.Settings)
	if err != nil {
		return cli.BadInput(nextSettings, err)
	}
	if cfg.Role() != a.Role {
		err := fmt.Errorf("%s holds the settings of a %s, not of a %s: a gateway has the key gateway, a node has workloads", a.Settings, cfg.Role(), a.Role)
		return cli.BadInput(fmt.Sprintf("isthmus %s --config %s", cfg.Role(), a.Settings), err)
	}
	if a.TokenFile != "" {
		cfg.Control.TokenFile = a.TokenFile
	}
	if a.Mode != "" {
		if cfg, err = cfg.WithMode(node.Mode(a.Mode)); err != nil {
			return cli.BadInput(nextSettings, err)
		}
	}
	cfg.Log, cfg.Version = log, version.String()
	agent, err := node.New(cfg)
	if err != nil {
		return err
	}
	return agent.Run(ctx)
}

func render(
	ctx context.Context, dir string, nodeSettings []string, proxy string,
) ([]adminapi.ProxyResource, []finding.Finding, error) {
	registry, err := registryOf(nodeSettings)
	if err != nil {
		return nil, nil, err
	}
	return spine.Render(dir, registry, proxy)
}
