// Package sdnotify tells the service manager how far a process has come (sd_notify(3)), so that what is ordered after
// its unit starts once it is ready. Where no manager listens, nobody is told.
package sdnotify

import (
	"fmt"
	"net"
	"os"
)

// Ready says that the process is ready.
func Ready() error {
	socket := os.Getenv("NOTIFY_SOCKET")
	if socket == "" {
		return nil
	}
	c, err := net.Dial("unixgram", socket)
	if err != nil {
		return fmt.Errorf("tell the service manager that all is ready: %w", err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("READY=1")); err != nil {
		return fmt.Errorf("tell the service manager that all is ready: %w", err)
	}
	return nil
}
