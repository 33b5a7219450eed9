package node

import (
	"log/slog"
	"os"
	"sync"

	"isthmus.dev/isthmus/internal/node/envoyproc"
)

// keeper has one Envoy keep the DNS sockets of the workloads that it serves: what is asked while no agent runs waits there
// for the next one, instead of being refused.
type keeper struct {
	log  *slog.Logger
	hold func([]envoyproc.Held) error

	mu   sync.Mutex            // guards what follows
	left map[string][]*os.File // by an earlier agent, not taken up yet
	held map[string][]*os.File
}

// inherit takes up what an earlier agent left in a run directory.
func (k *keeper) inherit(runDir string) {
	left, err := envoyproc.Kept(runDir)
	if err != nil {
		k.log.Warn("the Envoy that runs does not give back the sockets kept in it, replacing it: its connections end", "error", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.left, k.held = map[string][]*os.File{}, map[string][]*os.File{}
	for _, h := range left {
		k.left[h.Name] = h.Files
	}
}

// inherited are the sockets left under a name; whoever asks closes them.
func (k *keeper) inherited(name string) []*os.File {
	k.mu.Lock()
	defer k.mu.Unlock()
	files := k.left[name]
	delete(k.left, name)
	return files
}

// put has the files kept from now on; they must stay open until drop.
func (k *keeper) put(name string, files []*os.File) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.held[name] = files
	k.tell()
}

func (k *keeper) drop(name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.held, name)
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
	held := make([]envoyproc.Held, 0, len(k.held))
	for name, files := range k.held {
		held = append(held, envoyproc.Held{Name: name, Files: files})
	}
	if err := k.hold(held); err != nil {
		k.log.Error("DNS sockets not kept for the next agent", "error", err)
	}
}
