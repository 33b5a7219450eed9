// Package sdnotify reports readiness to the service manager (sd_notify(3)), so that dependent units start when the
// process is ready. Without a manager it does nothing.
package sdnotify

import (
	"fmt"
	"net"
	"os"
)

// Ready reports that the process is ready.
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
