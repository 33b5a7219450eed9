package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// netnsDir is where "ip netns" keeps named network namespaces.
const netnsDir = "/run/netns"

// resolvConf is where programs find their DNS server.
const resolvConf = "/etc/resolv.conf"

// NetnsPath returns the path of a named network namespace.
func NetnsPath(name string) string { return filepath.Join(netnsDir, name) }

// onOwnThread runs f on a thread that ends afterwards, so that no other goroutine sees the namespaces that f enters.
func onOwnThread(f func() error) error {
	done := make(chan error, 1)
	go ownThread(func() { done <- f() })
	return <-done
}

// ownThread runs f on a locked thread that the runtime ends afterwards. It never uses the main thread, which cannot end
// and whose namespaces /proc/self shows.
func ownThread(f func()) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		f()
		return // still locked, so the thread ends with this goroutine
	}
	defer runtime.UnlockOSThread()
	done := make(chan struct{})
	go func() {
		defer close(done)
		ownThread(f)
	}()
	<-done
}

// createNetns creates a named network namespace with loopback up and forwarding off.
func createNetns(name string) error {
	return onOwnThread(func() error {
		h, err := netns.NewNamed(name)
		if errors.Is(err, os.ErrExist) {
			return fmt.Errorf("network namespace %s is in use: remove it with `ip netns delete %s`", name, name)
		}
		if err != nil {
			return fmt.Errorf("make network namespace %s: %w", name, err)
		}
		defer h.Close()
		// A new namespace may inherit the host's forwarding. In the lab only gateways forward, at the TLS level. IPv6
		// is enabled on the loopback and on devices with an IPv6 address; elsewhere duplicate address detection would
		// cost seconds.
		for path, value := range map[string]string{
			"/proc/sys/net/ipv4/ip_forward":                  "0",
			"/proc/sys/net/ipv6/conf/all/forwarding":         "0",
			"/proc/sys/net/ipv6/conf/default/disable_ipv6":   "1",
			"/proc/sys/net/ipv4/ip_unprivileged_port_start":  "0",
			"/proc/sys/net/ipv4/tcp_tw_reuse":                "1",
			"/proc/sys/net/ipv4/conf/default/send_redirects": "0",
		} {
			if err := os.WriteFile(path, []byte(value), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("set %s in %s: %w", path, name, err)
			}
		}
		return nil
	})
}

// deleteNetns removes the name. The namespace ends with its last process.
func deleteNetns(name string) error {
	path := NetnsPath(name)
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) &&
		!errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	return nil
}

// Inside runs f on its own thread in the named network namespace. Sockets that f itself creates belong to that
// namespace; those of goroutines that it starts do not.
func Inside(name string, f func() error) error {
	return onOwnThread(func() error {
		if err := enter(name, ""); err != nil {
			return err
		}
		return f()
	})
}

// enter moves the calling thread, which must be locked for good, into a network namespace. With resolv it also enters a
// new mount namespace in which that file is /etc/resolv.conf.
func enter(name, resolv string) error {
	if resolv != "" {
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("make a mount namespace: %w", err)
		}
		// Mounts made here stay here; the host's unmounts propagate here.
		if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("detach the mount namespace: %w", err)
		}
		if err := unix.Mount(resolv, resolvConf, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("put %s in the place of %s (which must exist, be it empty): %w", resolv, resolvConf, err)
		}
	}
	h, err := netns.GetFromName(name)
	if err != nil {
		return fmt.Errorf("open network namespace %s: %w", name, err)
	}
	defer h.Close()
	if err := netns.Set(h); err != nil {
		return fmt.Errorf("enter network namespace %s: %w", name, err)
	}
	return nil
}

// Exec replaces this process by a command in a network namespace, with resolv as its /etc/resolv.conf if set. It
// returns only on failure.
func Exec(name, resolv, path string, argv, env []string) error {
	return onOwnThread(func() error {
		if err := enter(name, resolv); err != nil {
			return err
		}
		// The new program inherits the calling thread's namespaces.
		if err := unix.Exec(path, argv, env); err != nil {
			return fmt.Errorf("run %s: %w", path, err)
		}
		return nil
	})
}
