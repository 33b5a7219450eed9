package demo

import (
	"net/netip"

	"isthmus.dev/isthmus/internal/demo/lab"
	"isthmus.dev/isthmus/internal/wellknown"
)

// nodeSettings returns the settings file of mesh m's `isthmus node`.
func (w *world) nodeSettings(m mesh) any {
	var workloads []any
	for _, wl := range m.workloads {
		probe := map[string]any{"period": "200ms", "timeout": "500ms"}
		if wl.readyPath == "" {
			probe["tcp"] = map[string]any{"port": wl.port}
		} else {
			probe["http"] = map[string]any{"port": wl.port, "path": wl.readyPath}
		}
		workloads = append(workloads, map[string]any{
			"name": wl.name, "namespace": "default", "serviceAccount": wl.app,
			"labels":    map[string]string{"app": wl.app},
			"netns":     lab.NetnsPath(w.plan.workloadNetns(m, wl)),
			"addresses": []netip.Addr{wl.address},
			"ports":     []any{map[string]any{"name": wl.portName, "number": wl.port}},
			"readiness": probe,
		})
	}
	settings := w.agentSettings(m, nodeName(m), "node")
	settings["workloads"] = workloads
	settings["health"] = map[string]any{"address": "127.0.0.1:15022"} // the control plane on the same host uses 15021
	return settings
}

// gatewaySettings returns the settings file of mesh m's `isthmus gateway`.
func (w *world) gatewaySettings(m mesh) any {
	settings := w.agentSettings(m, gatewayName(m), "gateway")
	settings["gateway"] = map[string]any{
		"serviceAccount": gatewayServiceAccount, "innerAddress": m.inner, "outerAddress": m.outer,
	}
	return settings
}

func (w *world) agentSettings(m mesh, name, dir string) map[string]any {
	return map[string]any{
		"name":     name,
		"runDir":   w.files.runDir(m.name, dir),
		"stateDir": w.files.mesh(m.name, dir, "state"),
		"control": map[string]any{
			"addresses": []string{hostPort(m.host, wellknown.ControlPort)},
			"tokenFile": w.files.mesh(m.name, dir+".token"),
		},
		"envoy": map[string]any{"path": w.options.Envoy, "concurrency": 1},
	}
}
