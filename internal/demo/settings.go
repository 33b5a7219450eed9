package demo

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"sigs.k8s.io/yaml"

	"isthmus.dev/isthmus/internal/wellknown"
	"isthmus.dev/isthmus/samples"
)

// write writes all files of mesh m: its configuration, its federation files (applied later, by the tour or by hand),
// the settings of its three processes, and each workload's resolv.conf.
func (w *world) write(m mesh) error {
	copies := []struct{ from, to string }{
		{m.name, w.files.config(m.name)},
		{path.Join("federation", m.name), w.files.federation(m.name)},
	}
	for _, c := range copies {
		if err := copyYAML(samples.Files, c.from, c.to); err != nil {
			return err
		}
	}
	for name, settings := range map[string]any{
		"control.yaml": w.controlSettings(m),
		"node.yaml":    w.nodeSettings(m),
		"gateway.yaml": w.gatewaySettings(m),
	} {
		b, err := yaml.Marshal(settings)
		if err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
		if err := writeFile(w.files.mesh(m.name, name), b); err != nil {
			return err
		}
	}
	for _, wl := range m.workloads {
		if err := writeFile(w.files.resolv(w.plan.workloadNetns(m, wl)), []byte(resolvConf)); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) controlSettings(m mesh) any {
	return map[string]any{
		"configDir":      w.files.config(m.name),
		"stateFile":      w.files.mesh(m.name, "state.db"),
		"socket":         w.files.socket(m.name),
		"agentAddress":   hostPort(m.host, wellknown.ControlPort),
		"peeringAddress": hostPort(m.host, wellknown.PeeringPort),
		"metricsAddress": hostPort(m.host, wellknown.MetricsPort),
		"healthAddress":  "127.0.0.1:15021",
	}
}

// copyYAML copies the YAML files of an embedded folder.
func copyYAML(from fs.FS, dir, to string) error {
	names, err := fs.Glob(from, path.Join(dir, "*.yaml"))
	if err != nil {
		return err
	}
	for _, name := range names {
		b, err := fs.ReadFile(from, name)
		if err != nil {
			return err
		}
		if err := writeFile(filepath.Join(to, path.Base(name)), b); err != nil {
			return err
		}
	}
	return nil
}

// writeFile replaces a file atomically and creates its folder.
func writeFile(name string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return fmt.Errorf("make %s: %w", filepath.Dir(name), err)
	}
	next := filepath.Join(filepath.Dir(name), "."+filepath.Base(name)+".new")
	if err := os.WriteFile(next, content, 0o644); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := os.Rename(next, name); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}
