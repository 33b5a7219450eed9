package main

import (
	"os"
	"slices"
	"strings"
	"testing"

	"isthmus.dev/isthmus/internal/config"
	"isthmus.dev/isthmus/internal/node"
	"isthmus.dev/isthmus/internal/snapshot"
)

const packaged = "../../packaging/"

// unit is what a systemd unit says, by key; of a key that comes again, all values in their order.
func unit(t *testing.T, name string) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(packaged + "systemd/isthmus-" + name + ".service")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]string{}
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(key, "#") {
			out[key] = append(out[key], value)
		}
	}
	return out
}

// The units run this program's commands with what confines them, and stop and restart them as the agents count on.
// That a host boots with them is tried by test/install.
func TestPackagedUnits(t *testing.T) {
	const nodeCapabilities = "CAP_NET_ADMIN CAP_SYS_ADMIN CAP_SYS_PTRACE CAP_NET_RAW"
	everywhere := map[string]string{
		"Type": "notify", "Restart": "always", "NoNewPrivileges": "yes", "MemoryDenyWriteExecute": "yes",
		"ProtectSystem": "strict", "PrivateTmp": "yes", "PrivateDevices": "yes", "ProtectKernelModules": "yes",
		"ProtectKernelTunables": "yes", "LockPersonality": "yes", "SystemCallArchitectures": "native",
		"StateDirectoryMode": "0700", "ConfigurationDirectoryMode": "0750",
		"RestartPreventExitStatus": "64 65", // cli.md: the command line, or a file, is wrong
	}
	for name, own := range map[string]map[string]string{
		"control": {
			"User": "isthmus", "CapabilityBoundingSet": "", "UMask": "0077", "RestrictNamespaces": "yes",
			"RestrictSUIDSGID": "yes",
		},
		"gateway": {
			"User": "isthmus-gateway", "CapabilityBoundingSet": "", "UMask": "0077", "RestrictNamespaces": "yes",
			"RestrictSUIDSGID": "yes", "KillMode": "process", "RestartKillSignal": "SIGKILL",
			"SuccessExitStatus": "SIGKILL", "RuntimeDirectoryPreserve": "yes",
			// beyond the longest time that requests may go on
			"RuntimeDirectoryMode": "0700", "TimeoutStopSec": "30",
		},
		"node": {
			"CapabilityBoundingSet": nodeCapabilities, "KillMode": "process", "RestartKillSignal": "SIGKILL",
			"SuccessExitStatus": "SIGKILL", "RuntimeDirectoryPreserve": "yes", "RuntimeDirectoryMode": "0700",
			"TimeoutStopSec": "30",
		},
	} {
		says := unit(t, name)
		for _, wanted := range []map[string]string{everywhere, own} {
			for key, want := range wanted {
				if got := says[key]; !slices.Equal(got, []string{want}) {
					t.Errorf("%s: %s is %q, not %q", name, key, got, want)
				}
			}
		}
		start := strings.Join(says["ExecStart"], "; ")
		if want := "/usr/bin/isthmus " + name + " --config /etc/isthmus/" + name + ".yaml"; start != want {
			t.Errorf("%s: it starts %s, not %s", name, start, want)
		}
		if code, _, errs := isthmus(t, name, "--config", "/nowhere/"+name+".yaml"); code != 65 {
			t.Errorf("%s: a unit without its settings ends with %d: %s", name, code, errs)
		}
	}
}

// The examples that the packages bring are settings that load, of the role that they are for, in the folders of the
// units.
func TestPackagedExamplesLoad(t *testing.T) {
	for name, role := range map[string]snapshot.Role{"node": snapshot.RoleNode, "gateway": snapshot.RoleGateway} {
		cfg, err := node.LoadConfig(packaged + "examples/" + name + ".yaml")
		if err != nil || cfg.Role() != role {
			t.Errorf("%s: %v, the settings of a %s", name, err, cfg.Role())
			continue
		}
		if cfg.RunDir != "/run/isthmus/"+name || cfg.StateDir != "/var/lib/isthmus/"+name ||
			cfg.Control.TokenFile != "/etc/isthmus/"+name+".token" {
			t.Errorf("%s: it runs in %s, keeps its state in %s and its token in %s",
				name, cfg.RunDir, cfg.StateDir, cfg.Control.TokenFile)
		}
	}
	cfg, err := config.Load(packaged + "examples/control.yaml")
	if err == nil {
		cfg, err = cfg.Complete()
	}
	if err != nil || cfg.ConfigDir != "/etc/isthmus/mesh" || cfg.StateFile != "/var/lib/isthmus/control/state.db" ||
		cfg.Socket != "/run/isthmus/control/control.sock" {
		t.Errorf("control: %v; configuration in %s, state in %s, socket at %s",
			err, cfg.ConfigDir, cfg.StateFile, cfg.Socket)
	}
}
