//go:build e2e

package e2e

import (
	"net"
	"testing"
)

// beginDrips: whoever is slow at a workload, or at its own Envoy, is hung up on. At workloads whose configuration stays
// as it is: a change would end connections too.
func (s *shop) beginDrips(t *testing.T) *drips {
	t.Helper()
	d, alice := &drips{}, s.svid(t, caller("alice"))
	for port, address := range map[string]string{
		"HTTP": "10.93.0.22:8080", "TCP": "10.93.0.24:7000",
		"no service": "10.93.0.22:9999",
	} {
		raw := func() (net.Conn, error) { return s.dial(outsider, address) }
		d.add(port+", silent", raw, "")
		d.add(port+", greeting", raw, longHello)
		d.add(port+", plaintext", raw, longHeader)
		if port == "no service" {
			continue
		}
		d.add(port+", half a handshake", func() (net.Conn, error) {
			conn, err := raw()
			if err != nil {
				return nil, err
			}
			return halfShaken(conn, meshTLS(nil))
		}, "")
	}
	d.add("HTTP, header", func() (net.Conn, error) { return s.secretly("alice", "10.93.0.22:8080", meshTLS(alice)) },
		longHeader)
	d.add("outbound, silent", func() (net.Conn, error) { return s.dial("lonely", "203.0.113.7:80") }, "")
	d.add("outbound, header", func() (net.Conn, error) { return s.dial("lonely", "203.0.113.7:80") }, longHeader)
	return d
}
