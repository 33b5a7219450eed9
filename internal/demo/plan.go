package demo

import (
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"isthmus.dev/isthmus/internal/demo/lab"
)

// DefaultPrefix is the default prefix of the demo's network namespaces.
const DefaultPrefix = "isthmus"

// gatewayServiceAccount, in namespace isthmus-system, is the identity of both gateways.
const gatewayServiceAccount = "federation-gateway"

// plan is the layout of the demo: two meshes, the link between their gateways, and a stranger on that link.
type plan struct {
	prefix string
	meshes []mesh
}

// mesh is one of the two.
type mesh struct {
	name        string
	trustDomain string
	host        netip.Addr // control plane and node agent; the bridge of the inner subnet
	inner       netip.Addr // the gateway's inner address
	outer       netip.Addr // the gateway's address on the link
	workloads   []workload
}

// workload is one program in its own network namespace.
type workload struct {
	name      string // also its app label and service account, unless those are set
	app       string
	program   string // of isthmus-samples
	address   netip.Addr
	port      uint16
	portName  string
	args      []string // further flags of the program
	readyPath string   // path of the HTTP readiness probe; empty probes the TCP port
}

// Addresses. The inner subnets have no route to each other; only the gateways are on the link.
const (
	innerBits = 24
	linkBits  = 24
)

// strangerAddress is the address of an impostor on the link.
var strangerAddress = netip.MustParseAddr("198.51.100.66")

func newPlan(prefix string) plan {
	return plan{prefix: prefix, meshes: []mesh{
		newMesh("cards", 71, "198.51.100.11", []workload{
			{
				name: "payments", program: "payments", port: 8080, portName: "http-api",
				args: []string{"--tokens", "tokens.default:7000"}, readyPath: "/healthz",
			},
			{name: "tokens", program: "tokens", port: 7000, portName: "tcp-vault"},
		}),
		newMesh("retail", 72, "198.51.100.12", []workload{
			{name: "storefront", program: "storefront", port: 8080, portName: "http-web", readyPath: "/healthz"},
			{name: "catalogue", program: "catalogue", port: 8080, portName: "http-api", readyPath: "/healthz"},
			{name: "orders", program: "orders", port: 8080, portName: "http-api", readyPath: "/healthz"},
			{
				name: "standby", app: "payments", program: "payments", port: 8080, portName: "http-api",
				readyPath: "/healthz",
			},
		}),
	}}
}

func newMesh(name string, subnet byte, outer string, workloads []workload) mesh {
	m := mesh{
		name: name, trustDomain: name + ".example",
		host: netip.AddrFrom4([4]byte{10, subnet, 0, 1}), inner: netip.AddrFrom4([4]byte{10, subnet, 0, 2}),
		outer: netip.MustParseAddr(outer),
	}
	for i, w := range workloads {
		w.address = netip.AddrFrom4([4]byte{10, subnet, 0, byte(11 + i)})
		if w.app == "" {
			w.app = w.name
		}
		m.workloads = append(m.workloads, w)
	}
	return m
}

func (p plan) mesh(name string) mesh {
	i := slices.IndexFunc(p.meshes, func(m mesh) bool { return m.name == name })
	return p.meshes[i]
}

// find looks up a workload by "name" or "mesh/name".
func (p plan) find(name string) (mesh, workload, bool) {
	for _, m := range p.meshes {
		for _, w := range m.workloads {
			if name == w.name || name == m.name+"/"+w.name {
				return m, w, true
			}
		}
	}
	return mesh{}, workload{}, false
}

// Names of the network namespaces.
func (p plan) link() string                            { return p.prefix + "-link" }
func (p plan) stranger() string                        { return p.prefix + "-outsider" }
func (p plan) hostNetns(m mesh) string                 { return p.prefix + "-" + m.name + "-host" }
func (p plan) gatewayNetns(m mesh) string              { return p.prefix + "-" + m.name + "-gw" }
func (p plan) workloadNetns(m mesh, w workload) string { return p.prefix + "-" + m.name + "-" + w.name }

// network returns the network to build.
func (p plan) network() lab.Network {
	n := lab.Network{Bridges: []lab.Bridge{{Namespace: p.link()}}}
	for _, m := range p.meshes {
		n.Bridges = append(n.Bridges, lab.Bridge{
			Namespace: p.hostNetns(m),
			Address:   netip.PrefixFrom(m.host, innerBits),
		})
	}
	for _, m := range p.meshes {
		for _, w := range m.workloads {
			n.Attachments = append(n.Attachments, lab.Attachment{
				Namespace: p.workloadNetns(m, w), Device: "eth0", Address: netip.PrefixFrom(w.address, innerBits),
				// With a default route, calls to virtual addresses leave the program; capture redirects them before
				// they reach the wire.
				Bridge: p.hostNetns(m), Port: "v-" + w.name, Via: m.host,
			})
		}
		n.Attachments = append(n.Attachments,
			lab.Attachment{
				Namespace: p.gatewayNetns(m), Device: "eth0", Address: netip.PrefixFrom(m.inner, innerBits),
				Bridge: p.hostNetns(m), Port: "v-gw",
			},
			lab.Attachment{
				Namespace: p.gatewayNetns(m), Device: "eth1", Address: netip.PrefixFrom(m.outer, linkBits),
				Bridge: p.link(), Port: "v-" + m.name,
			},
		)
	}
	n.Attachments = append(n.Attachments, lab.Attachment{
		Namespace: p.stranger(), Device: "eth0", Address: netip.PrefixFrom(strangerAddress, linkBits), Bridge: p.link(),
		Port: "v-outsider",
	})
	return n
}

// files are the paths in the run directory.
type files struct{ dir string }

func (f files) mesh(m string, path ...string) string {
	return filepath.Join(append([]string{f.dir, m}, path...)...)
}
func (f files) config(m string) string     { return f.mesh(m, "config") }
func (f files) federation(m string) string { return f.mesh(m, "federation") }
func (f files) socket(m string) string     { return f.mesh(m, "control.sock") }

// runDir returns the run directory of an agent, "node" or "gateway".
func (f files) runDir(m, agent string) string { return f.mesh(m, agent, "run") }

func (f files) resolv(ns string) string { return filepath.Join(f.dir, "netns", ns, "resolv.conf") }

// resolvConf is every workload's resolv.conf: the agent's DNS in the workload's namespace, with Kubernetes' search
// domains.
const resolvConf = `nameserver 127.0.0.1
search default.svc.cluster.local svc.cluster.local cluster.local
options ndots:5
`

func hostPort(a netip.Addr, port int) string { return netip.AddrPortFrom(a, uint16(port)).String() }

func listenFlag(w workload) string { return ":" + strconv.Itoa(int(w.port)) }

// workloadNames lists the workloads for a message.
func (p plan) workloadNames() string {
	var names []string
	for _, m := range p.meshes {
		for _, w := range m.workloads {
			names = append(names, w.name)
		}
	}
	return strings.Join(names, ", ")
}
