package meshlab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"sigs.k8s.io/yaml"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/retry"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/wellknown"
)

// gatewayAccount in namespace isthmus-system is every gateway's service account.
const gatewayAccount = "federation-gateway"

// Agent is an agent that runs, and its Envoy.
type Agent struct {
	PID    int
	runDir string
}

// Envoy is the process id of the agent's Envoy.
func (a Agent) Envoy() (int, error) {
	text, err := os.ReadFile(filepath.Join(a.runDir, "envoy.pid"))
	if err != nil {
		return 0, fmt.Errorf("find the agent's Envoy: %w", err)
	}
	first, _, _ := strings.Cut(string(text), "\n")
	return strconv.Atoi(first)
}

// Running is one mesh that runs.
type Running struct {
	Mesh    Mesh
	Control int              // process id
	Agents  map[string]Agent // by the node's name; the gateway is "gateway"
	lab     *Lab
}

// Run starts a mesh and waits until every Envoy has all its configuration.
func (l *Lab) Run(ctx context.Context, m Mesh) (*Running, error) {
	r := &Running{Mesh: m, Agents: map[string]Agent{}, lab: l}
	if err := r.startControl(ctx); err != nil {
		return nil, fmt.Errorf("start the control plane of %s: %w", m.Name, err)
	}
	for _, n := range m.Nodes {
		if err := r.startAgent(ctx, "node", n.Name, r.nodeSettings(n)); err != nil {
			return nil, fmt.Errorf("start %s: %w", n.Name, err)
		}
	}
	if m.Gateway {
		gw := map[string]any{
			"serviceAccount": gatewayAccount, "innerAddress": l.plan.places[m.Name+"/gateway"].Address,
			"outerAddress": l.plan.outer[m.Name],
		}
		if err := r.startAgent(ctx, "gateway", "gateway", map[string]any{"gateway": gw}); err != nil {
			return nil, fmt.Errorf("start the gateway of %s: %w", m.Name, err)
		}
	}
	return r, retry.Until(ctx, 60*time.Second, 50*time.Millisecond, r.checkSynced)
}

func (r *Running) dir(path ...string) string {
	return filepath.Join(append([]string{r.lab.cfg.Dir, r.Mesh.Name}, path...)...)
}

func (r *Running) host() Place { return r.lab.plan.places[r.Mesh.Name+"/host"] }

func (r *Running) startControl(ctx context.Context) error {
	for name, text := range r.Mesh.Files {
		if err := r.Write(name, text); err != nil {
			return err
		}
	}
	at := func(port int) string { return fmt.Sprintf("%s:%d", r.host().Address, port) }
	settings := map[string]any{
		"configDir": r.dir("config"), "stateFile": r.dir("state.db"), "socket": r.dir("control.sock"),
		"agentAddress": at(wellknown.ControlPort), "peeringAddress": at(wellknown.PeeringPort),
		"metricsAddress": at(wellknown.MetricsPort), "healthAddress": "127.0.0.1:15021",
	}
	file := r.dir("control.yaml")
	if err := writeYAML(file, settings); err != nil {
		return err
	}
	pid, err := r.lab.Start(r.Mesh.Name+"-control", r.host(), r.lab.cfg.Isthmus, "control", "--config", file)
	if err != nil {
		return err
	}
	r.Control = pid
	return retry.Until(ctx, 20*time.Second, 50*time.Millisecond, func(ctx context.Context) error {
		_, err := Call[adminapi.Empty, adminapi.StatusResponse](ctx, r, "Status", &adminapi.Empty{})
		return err
	})
}

// Write writes a file of the mesh's configuration, whole.
func (r *Running) Write(name, text string) error {
	if err := os.MkdirAll(r.dir("config"), 0o755); err != nil {
		return fmt.Errorf("make the configuration folder: %w", err)
	}
	next := r.dir("config", "."+name+".new")
	if err := os.WriteFile(next, []byte(text), 0o644); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return os.Rename(next, r.dir("config", name))
}

func (r *Running) nodeSettings(n Node) map[string]any {
	var workloads []any
	for _, w := range n.Workloads {
		place := r.lab.plan.places[w.Name]
		workloads = append(workloads, map[string]any{
			"name": w.Name, "namespace": "default", "serviceAccount": w.Name,
			"labels": map[string]string{"app": w.Name}, "netns": place.Netns(), "addresses": []any{place.Address},
			"ports": w.Ports,
		})
	}
	return map[string]any{"workloads": workloads}
}

func (r *Running) startAgent(ctx context.Context, verb, name string, settings map[string]any) error {
	full := r.Mesh.Name + "-" + name
	req, at := &adminapi.TokenRequest{
		Node: full, Role: snapshot.RoleNode, Identities: []string{"default/*"}, TTL: 5 * time.Minute,
	}, r.host()
	if verb == "gateway" {
		req.Role, req.Identities, at = snapshot.RoleGateway, []string{"isthmus-system/" + gatewayAccount},
			r.lab.plan.places[r.Mesh.Name+"/gateway"]
	}
	token, err := Call[adminapi.TokenRequest, adminapi.TokenResponse](ctx, r, "CreateToken", req)
	if err != nil {
		return fmt.Errorf("make a join token: %w", err)
	}
	if err := os.WriteFile(r.dir(name+".token"), []byte(token.Token+"\n"), 0o600); err != nil {
		return fmt.Errorf("write the join token: %w", err)
	}
	a := Agent{runDir: r.dir(name, "run")}
	settings["name"], settings["runDir"], settings["stateDir"] = full, a.runDir, r.dir(name, "state")
	settings["control"] = map[string]any{"addresses": []string{fmt.Sprintf("%s:%d", r.host().Address,
		wellknown.ControlPort)}, "tokenFile": r.dir(name + ".token")}
	settings["envoy"] = map[string]any{"path": r.lab.cfg.Envoy, "concurrency": r.lab.cfg.Concurrency}
	settings["health"] = map[string]any{"address": "off"}
	file := r.dir(name + ".yaml")
	if err := writeYAML(file, settings); err != nil {
		return err
	}
	a.PID, err = r.lab.Start(full, at, r.lab.cfg.Isthmus, verb, "--config", file)
	r.Agents[name] = a
	return err
}

// checkSynced returns an error that names an agent whose Envoy does not have all its configuration yet.
func (r *Running) checkSynced(ctx context.Context) error {
	st, err := Call[adminapi.Empty, adminapi.StatusResponse](ctx, r, "Status", &adminapi.Empty{})
	if err != nil {
		return err
	}
	var errs []error
	for _, f := range st.Findings {
		if f.Severity == finding.Error {
			errs = append(errs, fmt.Errorf("the control plane of %s says: %s", r.Mesh.Name, f))
		}
	}
	ready := 0
	for _, p := range st.Proxies {
		if p.Connected && p.Envoy.Running && len(p.Types) > 0 {
			ready++
		}
		for _, t := range p.Types {
			if t.Sent != t.Acked {
				errs = append(errs, fmt.Errorf("%s has not acknowledged its %s: %s", p.Name, t.Type, t.Nack))
			}
		}
	}
	if ready < len(r.Agents) {
		errs = append(errs, fmt.Errorf("%d of %d agents of %s are ready", ready, len(r.Agents), r.Mesh.Name))
	}
	return errors.Join(errs...)
}

func writeYAML(file string, v any) error {
	text, err := yaml.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", file, err)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return fmt.Errorf("make the folder of %s: %w", file, err)
	}
	return os.WriteFile(file, text, 0o600)
}

// Call calls the mesh's administration API.
func Call[Req, Resp any](ctx context.Context, r *Running, method string, req *Req) (*Resp, error) {
	conn, err := grpc.NewClient("unix://"+r.dir("control.sock"),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	return adminapi.Call[Req, Resp](ctx, conn, method, req)
}
