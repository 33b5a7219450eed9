package node

import (
	"log/slog"
	"os"
	"strings"
	"sync"

	"isthmus.dev/isthmus/internal/node/envoyproc"
)

// socketKeeper makes an Envoy hold the agent's sockets in its workloads' namespaces while no agent runs. Questions that
// arrive meanwhile wait in the sockets for the next agent instead of being refused, and queues stay occupied.
type socketKeeper struct {
	log  *slog.Logger
	hold func([]envoyproc.HeldSocket) error

	mu        sync.Mutex                        // guards what follows
	inherited map[string][]*os.File             // left by an earlier agent, not taken yet
	held      map[string][]envoyproc.HeldSocket // by namespace
}

// inherit fetches the sockets that an earlier agent left in a run directory.
func (k *socketKeeper) inherit(runDir string) {
	left, err := envoyproc.HeldSockets(runDir)
	if err != nil {
		k.log.Warn("the running Envoy does not return the sockets kept in it, replacing it: its connections are closed",
			"error", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.inherited, k.held = map[string][]*os.File{}, map[string][]envoyproc.HeldSocket{}
	for _, h := range left {
		k.inherited[h.Name] = h.Files
	}
}

// takeInherited returns the inherited sockets whose name begins with prefix, by the rest of the name. The caller closes
// them.
func (k *socketKeeper) takeInherited(prefix string) map[string][]*os.File {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := map[string][]*os.File{}
	for name, files := range k.inherited {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			out[rest] = files
			delete(k.inherited, name)
		}
	}
	return out
}

// put keeps the sockets of a namespace from now on. They must stay open until drop.
func (k *socketKeeper) put(namespace string, held []envoyproc.HeldSocket) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.held[namespace] = held
	k.update()
}

func (k *socketKeeper) drop(namespace string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.held, namespace)
	k.update()
}

// disown closes the inherited sockets that nobody took, since their namespaces are gone.
func (k *socketKeeper) disown() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, files := range k.inherited {
		envoyproc.Release(files)
	}
	k.inherited = nil
	k.update()
}

func (k *socketKeeper) update() {
	var held []envoyproc.HeldSocket
	for _, h := range k.held {
		held = append(held, h...)
	}
	if err := k.hold(held); err != nil {
		k.log.Error("sockets not kept for the next agent", "error", err)
	}
}
