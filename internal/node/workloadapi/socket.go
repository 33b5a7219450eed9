package workloadapi

import (
	"fmt"
	"net"
	"path/filepath"
	"slices"

	"isthmus.dev/isthmus/internal/unixsocket"
)

func listenAt(path string) (*net.UnixListener, error) {
	l, err := unixsocket.Listen(path, 0o666)
	if err != nil {
		return nil, fmt.Errorf("workloadSocket.path: %w", err)
	}
	return l, nil
}

// removeLeftovers removes the sockets of workloads that are no longer here. Folders stay, since a container may have
// them mounted.
func (s *Server) removeLeftovers() error {
	wanted := make([]string, 0, len(s.served))
	for _, w := range s.served {
		wanted = append(wanted, w.Path)
	}
	old, err := filepath.Glob(filepath.Join(s.cfg.Folder, "*", "*.sock"))
	if err != nil {
		return fmt.Errorf("look for old sockets: %w", err)
	}
	for _, path := range old {
		if slices.Contains(wanted, path) {
			continue
		}
		if err := unixsocket.MakeRoom(path); err != nil {
			return err
		}
	}
	return nil
}
