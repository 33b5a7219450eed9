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
)

// WorkloadSocket is where a workload finds the SPIFFE Workload API, and who may ask there.
type WorkloadSocket struct {
	// Path of the socket. Default workload/<namespace>/<name>.sock in RunDir.
	Path string `yaml:"path"`
	// Users, by number, that may ask. Default: all in the workload's network namespace.
	Users []uint32 `yaml:"users"`
	// Off: the workload's processes get no certificate; only Envoy does.
	Off bool `yaml:"off"`
}

// socketFolder is where sockets are that the file places nowhere else.
func (c *Config) socketFolder() string { return filepath.Join(c.RunDir, "workload") }

// socketDefaults places the sockets. A workload without a network namespace of its own can be told from others by its
// users alone: when none are named it gets none.
func (c *Config) socketDefaults() {
	for i := range c.Workloads {
		w := &c.Workloads[i]
		s := &w.WorkloadSocket
		if w.Netns == "" && s.Path == "" && len(s.Users) == 0 {
			s.Off = true
		}
		if !s.Off {
			s.Path = cmp.Or(s.Path, filepath.Join(c.socketFolder(), w.Namespace, w.Name+".sock"))
		}
	}
}

func (c *Config) validateSockets(r *reader) {
	paths, users := map[string]string{}, map[uint32]string{}
	for i, w := range c.Workloads {
		at, s := fmt.Sprintf("workloads[%d].workloadSocket", i), w.WorkloadSocket
		if s.Off {
			if s.Path != "" || len(s.Users) > 0 {
				r.add(at+".off", "the socket is off, and yet described", "remove off, or path and users")
			}
			continue
		}
		switch {
		case !filepath.IsAbs(s.Path):
			r.add(at+".path", fmt.Sprintf("%q is not an absolute path", s.Path), "begin it with /")
		case len(s.Path) > workloadapi.MaxPath:
			r.add(at+".path", fmt.Sprintf("the path %s has %d characters, and Linux allows %d", s.Path, len(s.Path), workloadapi.MaxPath),
				"write a shorter path or a shorter runDir, or off: true")
		case paths[filepath.Clean(s.Path)] != "":
			r.add(at+".path", fmt.Sprintf("workload %s has its socket there already", paths[filepath.Clean(s.Path)]), "give every workload a path of its own")
		}
		paths[filepath.Clean(s.Path)] = w.Key()
		if w.Netns != "" {
			continue
		}
		if len(s.Users) == 0 {
			r.add(at, "without a network namespace of its own the workload is known by its users alone", "name them, for example users: [1001]")
		}
		for j, u := range s.Users {
			if other := users[u]; other != "" && other != w.Key() {
				r.add(fmt.Sprintf("%s.users[%d]", at, j), fmt.Sprintf("user %d is also workload %s, and nothing else tells them apart", u, other),
					"give each a user or a network namespace of its own")
			}
			users[u] = w.Key()
		}
	}
}

// newWorkloadAPI serves the certificates that Envoy has to the workloads too.
func (a *Agent) newWorkloadAPI() *workloadapi.Server {
	cfg := workloadapi.Config{
		Log: a.log, Folder: a.cfg.socketFolder(), Store: a.sds, Joined: a.control.Joined(),
		TrustDomain: func() spiffe.TrustDomain { return a.control.Identity().ID.TrustDomain() },
	}
	for _, w := range a.cfg.Workloads {
		if s := w.WorkloadSocket; !s.Off && s.Path != "" {
			cfg.Workloads = append(cfg.Workloads, workloadapi.Workload{
				Name: w.Key(), Account: sds.ServiceAccount{Namespace: w.Namespace, Name: w.ServiceAccount},
				Netns: w.Netns, Path: s.Path, Users: s.Users,
			})
		}
	}
	return workloadapi.New(cfg)
}

// listenWorkloads opens the workloads' sockets. Where they lie in the run directory it lets others pass through: what
// else is in it is closed to them.
func (a *Agent) listenWorkloads() error {
	inside := func(w Workload) bool { return strings.HasPrefix(w.WorkloadSocket.Path, a.cfg.RunDir+"/") }
	if slices.ContainsFunc(a.cfg.Workloads, inside) {
		if err := os.Chmod(a.cfg.RunDir, 0o711); err != nil {
			return fmt.Errorf("let the workloads reach their sockets: %w", err)
		}
	}
	return a.workloads.Listen()
}

// learnRoots takes up which roots the mesh has now.
func (a *Agent) learnRoots(in *agentapi.Instructions) {
	if len(in.Roots) == 0 {
		return
	}
	roots, err := identity.ParseRoots(in.Roots)
	if err != nil {
		a.log.Error("roots of the mesh not read, those of before stay", "error", err)
		return
	}
	a.sds.SetRoots(roots)
	a.control.SetRoots(roots)
}
