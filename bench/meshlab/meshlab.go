// Package meshlab builds meshes of ours on one machine, to be measured: network namespaces, control planes, agents and
// their Envoys, as processes of their own. Whatever an earlier run left behind is removed first.
package meshlab

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"isthmus.dev/isthmus/internal/demo/lab"
)

// Config of a lab.
type Config struct {
	Prefix      string // of every namespace's name
	Dir         string // made, and removed by Close
	Isthmus     string // the binaries
	Envoy       string
	Concurrency int // worker threads of each Envoy
	Meshes      []Mesh
}

// Mesh is one mesh: a host with the control plane and all agents on a bridge, to which all its workloads are attached.
type Mesh struct {
	Name      string
	Nodes     []Node
	Strangers []Workload // on the same bridge, but in no mesh: no agent, no capture
	Gateway   bool
	Files     map[string]string // configuration, by file name
}

// TrustDomain of the mesh.
func (m Mesh) TrustDomain() string { return m.Name + ".example" }

// Node is one agent with one Envoy.
type Node struct {
	Name      string
	Workloads []Workload
}

// Workload lives in a namespace of its own and runs as a service account of its own name.
type Workload struct {
	Name  string
	Ports []Port
}

// Port that a workload listens on.
type Port struct {
	Name   string `json:"name"`
	Number int    `json:"number"`
}

// Lab is one that runs.
type Lab struct {
	cfg  Config
	lab  *lab.Lab
	plan plan
}

// Open builds the namespaces. Nothing runs in them yet.
func Open(cfg Config) (*Lab, error) {
	for _, path := range []string{cfg.Isthmus, cfg.Envoy} {
		if _, err := os.Stat(path); err != nil {
			return nil, fmt.Errorf("find the binaries to measure (`make build` makes bin/isthmus): %w", err)
		}
	}
	p := newPlan(cfg)
	l, _, err := lab.Open(lab.Config{Prefix: cfg.Prefix, Dir: cfg.Dir, Network: p.network})
	if err != nil {
		return nil, fmt.Errorf("build network namespaces: %w", err)
	}
	return &Lab{cfg: cfg, lab: l, plan: p}, nil
}

// Close ends and removes everything.
func (l *Lab) Close() error { return l.lab.Close() }

// Dir is the lab's folder.
func (l *Lab) Dir() string { return l.cfg.Dir }

// Place is where a workload lives.
func (l *Lab) Place(workload string) Place { return l.plan.places[workload] }

// Start runs a further command in a namespace and tells its process id.
func (l *Lab) Start(name string, at Place, path string, args ...string) (pid int, err error) {
	p, err := l.lab.Start(lab.Command{Name: name, Namespace: at.Namespace, Path: path, Args: args})
	if err != nil {
		return 0, err
	}
	return p.PID(), nil
}

// Logs are the last lines of every log, to go with a failure.
func (l *Lab) Logs() string {
	files, _ := filepath.Glob(l.lab.LogFile("*"))
	var b strings.Builder
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil || len(text) == 0 {
			continue
		}
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		fmt.Fprintf(&b, "— %s\n%s\n", filepath.Base(f), strings.Join(lines[max(0, len(lines)-3):], "\n"))
	}
	return b.String()
}
