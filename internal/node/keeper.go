package node

import (
	"log/slog"
	"os"
	"strings"
	"sync"

	"isthmus.dev/isthmus/internal/node/envoyproc"
)

// keeper has one Envoy keep the agent's sockets in the namespaces of the workloads that it serves, while no agent runs:
// what is asked meanwhile waits in them for the next one instead of being refused, and what they hold stays held.
type keeper struct {
	log  *slog.Logger
	hold func([]envoyproc.Held) error

	mu   sync.Mutex                  // guards what follows
	left map[string][]*os.File       // by an earlier agent, not taken up yet
	held map[string][]envoyproc.Held // by namespace
}

// inherit takes up what an earlier agent left in a run directory.
func (k *keeper) inherit(runDir string) {
	left, err := envoyproc.Kept(runDir)
	if err != nil {
		k.log.Warn("the Envoy that runs does not give back the sockets kept in it, replacing it: its connections end",
			"error", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.left, k.held = map[string][]*os.File{}, map[string][]envoyproc.Held{}
	for _, h := range left {
		k.left[h.Name] = h.Files
	}
}

// inherited are the sockets left under the names that begin so, by the rest of the name; whoever asks closes them.
func (k *keeper) inherited(prefix string) map[string][]*os.File {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := map[string][]*os.File{}
	for name, files := range k.left {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			out[rest] = files
			delete(k.left, name)
		}
	}
	return out
}

// put has the sockets of a namespace kept from now on; they must stay open until drop.
func (k *keeper) put(namespace string, held []envoyproc.Held) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.held[namespace] = held
	k.tell()
}

func (k *keeper) drop(namespace string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.held, namespace)
	k.tell()
}

// disown closes what nobody took up: its namespaces are gone.
func (k *keeper) disown() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, files := range k.left {
		envoyproc.Release(files)
	}
	k.left = nil
	k.tell()
}

func (k *keeper) tell() {
	var held []envoyproc.Held
	for _, h := range k.held {
		held = append(held, h...)
	}
	if err := k.hold(held); err != nil {
		k.log.Error("sockets not kept for the next agent", "error", err)
	}
}
