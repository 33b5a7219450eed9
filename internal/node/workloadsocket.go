package node

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/node/identity"
	"isthmus.dev/isthmus/internal/node/sds"
	"isthmus.dev/isthmus/internal/node/workloadapi"
	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/unixsocket"
)

// WorkloadSocket is where a workload finds the SPIFFE Workload API, and who may call it. A workload without one cannot
// get its own key: only Envoy uses it.
type WorkloadSocket struct {
	// Path of the socket. Default workload/<namespace>/<name>.sock in RunDir.
	Path string `yaml:"path"`
	// Users, by number, that may ask. Default: all in the workload's network namespace.
	Users []uint32 `yaml:"users"`
}

// socketFolder returns the default folder of the sockets.
func (c *Config) socketFolder() string { return filepath.Join(c.RunDir, "workload") }

// socketDefaults sets the default paths.
func (c *Config) socketDefaults() {
	for _, w := range c.Workloads {
		if s := w.WorkloadSocket; s != nil {
			s.Path = cmp.Or(s.Path, filepath.Join(c.socketFolder(), w.Namespace, w.Name+".sock"))
		}
	}
}

func (c *Config) validateSockets(r *reader) {
	paths, users := map[string]string{}, map[uint32]string{}
	for i, w := range c.Workloads {
		at, s := fmt.Sprintf("workloads[%d].workloadSocket", i), w.WorkloadSocket
		if s == nil {
			continue
		}
		switch {
		case !filepath.IsAbs(s.Path):
			r.add(at+".path", fmt.Sprintf("%q is not an absolute path", s.Path), "begin it with /")
		case len(s.Path) > unixsocket.MaxPath:
			r.add(at+".path", fmt.Sprintf("the path %s has %d characters, and Linux allows %d", s.Path, len(s.Path),
				unixsocket.MaxPath),
				"write a shorter path or a shorter runDir")
		case paths[filepath.Clean(s.Path)] != "":
			r.add(at+".path", fmt.Sprintf("workload %s has its socket there already", paths[filepath.Clean(s.Path)]),
				"give every workload a path of its own")
		}
		paths[filepath.Clean(s.Path)] = w.Key()
		if w.Netns != "" {
			continue
		}
		if len(s.Users) == 0 {
			r.add(at, "without a network namespace of its own the workload is known by its users alone",
				"name them, for example users: [1001]")
		}
		for j, u := range s.Users {
			if other := users[u]; other != "" && other != w.Key() {
				r.add(fmt.Sprintf("%s.users[%d]", at, j),
					fmt.Sprintf("user %d is also workload %s, and nothing else tells them apart", u, other),
					"give each a user or a network namespace of its own")
			}
			users[u] = w.Key()
		}
	}
}

// newWorkloadAPI serves Envoy's certificates to the workloads as well.
func (a *Agent) newWorkloadAPI() *workloadapi.Server {
	cfg := workloadapi.Config{
		Log: a.log, Folder: a.cfg.socketFolder(), Store: a.sds, Joined: a.control.Joined(), Changed: a.reportChanged,
		TrustDomain: func() spiffe.TrustDomain { return a.control.Identity().ID.TrustDomain() },
	}
	for _, w := range a.cfg.Workloads {
		if s := w.WorkloadSocket; s != nil {
			cfg.Workloads = append(cfg.Workloads, workloadapi.Workload{
				Name: w.Key(), Account: sds.ServiceAccount{Namespace: w.Namespace, Name: w.ServiceAccount},
				Netns: w.Netns, Path: s.Path, Users: s.Users,
			})
		}
	}
	return workloadapi.New(cfg)
}

// listenWorkloads opens the workloads' sockets. When they are in the run directory, it makes that directory traversable
// for others; everything else in it stays closed to them.
func (a *Agent) listenWorkloads() error {
	inside := func(w Workload) bool {
		return w.WorkloadSocket != nil && strings.HasPrefix(w.WorkloadSocket.Path, a.cfg.RunDir+"/")
	}
	if slices.ContainsFunc(a.cfg.Workloads, inside) {
		if err := os.Chmod(a.cfg.RunDir, 0o711); err != nil {
			return fmt.Errorf("let the workloads reach their sockets: %w", err)
		}
	}
	if err := a.workloads.Listen(); err != nil {
		a.log.Error("Workload API not served to every workload, trying again", "error", err)
	}
	return nil
}

// learnRoots records the mesh's present roots.
func (a *Agent) learnRoots(in *agentapi.Instructions) {
	if len(in.Roots) == 0 {
		return
	}
	roots, err := identity.ParseRoots(in.Roots)
	if err != nil {
		a.log.Error("roots of the mesh not read, the previous ones stay", "error", err)
		return
	}
	a.sds.SetRoots(roots)
	a.control.SetRoots(roots)
}
