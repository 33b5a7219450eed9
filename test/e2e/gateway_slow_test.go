//go:build e2e

package e2e

import (
	"crypto/tls"
	"net"
)

// beginDrips: whoever is slow, from outside or inside, known or not, is hung up on.
func (g *gateway) beginDrips() *drips {
	d := &drips{}
	for side, c := range map[string]gwCaller{
		"outside": g.peers["north"].client("api"),
		"inside":  g.caller("web", "p9080.billing"),
	} {
		raw := func() (net.Conn, error) { return gwDial(c.from, c.to) }
		d.add(side+", silent", raw, "")
		d.add(side+", greeting", raw, longHello)
		d.add(side+", no handshake", raw, longHeader)
		d.add(side+", half a handshake", func() (net.Conn, error) {
			conn, err := raw()
			if err != nil {
				return nil, err
			}
			return halfShaken(conn, &tls.Config{ServerName: c.sni, InsecureSkipVerify: true})
		}, "")
		d.add(side+", header", func() (net.Conn, error) { return g.filled(c).dial() }, longHeader)
	}
	return d
}
