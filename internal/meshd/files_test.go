package meshd

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"isthmus.dev/isthmus/internal/config"
	"isthmus.dev/isthmus/internal/snapshot"
)

// fewFiles is how many files the control plane of TestFloodOfConnections may open.
const fewFiles = 256

const settingsOfChild = "ISTHMUS_TEST_CONTROL" // by which this test hands its settings to the process that it starts

// TestControlWithFewFiles is not a test: it is the process that TestFloodOfConnections starts.
func TestControlWithFewFiles(t *testing.T) {
	text := os.Getenv(settingsOfChild)
	if text == "" {
		t.Skip("it is the process that another test starts")
	}
	var cfg config.Control
	must(t, json.Unmarshal([]byte(text), &cfg))
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: fewFiles, Max: fewFiles}))
	if err := Run(context.Background(), cfg, slog.New(slog.NewTextHandler(os.Stderr, nil))); err != nil {
		t.Fatal(err)
	}
}

// Strangers with more connections than the control plane has files, on all its ports and doing nothing, neither keep
// the administration of its own host out, nor nodes, nor changes of the configuration.
func TestFloodOfConnections(t *testing.T) {
	t.Parallel()
	p := newPlane(t, map[string]string{"mesh.yaml": meshYAML})
	text, err := json.Marshal(p.cfg)
	must(t, err)
	child := exec.Command(os.Args[0], "-test.run=^TestControlWithFewFiles$", "-test.timeout=2m")
	child.Env = append(os.Environ(), settingsOfChild+"="+string(text))
	child.Stderr = p.logs
	must(t, child.Start())
	t.Cleanup(func() { child.Process.Kill(); child.Wait() })
	eventually(t, "it is up", func() bool { return strings.Contains(p.logs.String(), "control plane is up") })
	eventually(t, "it is ready", func() bool {
		c, err := net.DialTimeout("unix", p.cfg.Socket, time.Second)
		if err == nil {
			c.Close()
		}
		return err == nil
	})

	stop := make(chan struct{})
	var connected atomic.Int32
	t.Cleanup(func() { close(stop) })
	for _, address := range []string{
		p.cfg.AgentAddress, p.cfg.PeeringAddress, p.cfg.MetricsAddress,
		p.cfg.HealthAddress,
	} {
		for range fewFiles {
			go hammer(address, &connected, stop)
		}
	}
	eventually(t, "the flood has more connections than the control plane may have files", func() bool {
		return connected.Load() > fewFiles
	})
	for i := range 5 {
		begun := time.Now()
		p.status()
		p.write("more.yaml", fmt.Sprintf("apiVersion: v1\nkind: Namespace\nmetadata: {name: team-%d}\n", i))
		eventually(t, "the change is seen", func() bool { return p.status().Objects == 3 })
		must(t, os.Remove(p.cfg.ConfigDir+"/more.yaml"))
		eventually(t, "its end is seen", func() bool { return p.status().Objects == 2 })
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("the local socket answered, and the configuration was followed, after %s", took)
		}
	}
	begun := time.Now()
	var joined bool
	for !joined && time.Since(begun) < 10*time.Second {
		_, err := p.join(p.token("node-a", snapshot.RoleNode, "default/*"))
		joined = err == nil
	}
	if !joined {
		t.Error("no node joins for ten seconds")
	}
	t.Logf("a node joined after %s", time.Since(begun))
}

// hammer keeps a connection open that says nothing, and connects again whenever it is closed.
// hammer holds a connection open, and makes another when it is closed. connected counts those that were made.
func hammer(address string, connected *atomic.Int32, stop chan struct{}) {
	for {
		c, err := net.DialTimeout("tcp", address, time.Second)
		if err == nil {
			connected.Add(1)
			closed := make(chan struct{})
			go func() {
				c.Read(make([]byte, 1))
				close(closed)
			}()
			select {
			case <-closed:
			case <-stop:
			}
			c.Close()
		}
		select {
		case <-stop:
			return
		case <-time.After(200 * time.Millisecond):
		}
	}
}
