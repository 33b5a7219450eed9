// Package node is the agent behind `isthmus node` and `isthmus gateway`. It joins the control plane, runs one Envoy for
// all workloads of the host (or for the gateway), supplies its configuration and certificates, captures the workloads'
// traffic, answers their DNS questions, and reports their state to the control plane.
package node

import (
	"log/slog"
	"net/netip"
	"time"

	"isthmus.dev/isthmus/internal/snapshot"
)

// Config of an Agent, as written in its file. LoadConfig fills in what is left out and checks the rest.
type Config struct {
	// Name of this node or gateway; the join token is made for it.
	Name string `yaml:"name"`
	// Mode is node, with one Envoy for all workloads, or sidecar, with one Envoy per workload. Default node.
	Mode Mode `yaml:"mode"`
	// RunDir holds sockets, Envoy's bootstrap and logs. Default /run/isthmus/node, or /run/isthmus/gateway.
	RunDir string `yaml:"runDir"`
	// StateDir holds the node's key and certificate, which must outlive a reboot. Default /var/lib/isthmus/node, or
	// /var/lib/isthmus/gateway.
	StateDir string `yaml:"stateDir"`
	// Control plane.
	Control ControlConfig `yaml:"control"`
	// Envoy that the agent runs.
	Envoy EnvoyConfig `yaml:"envoy"`
	// DNS for the workloads.
	DNS DNSConfig `yaml:"dns"`
	// Health endpoint, plain HTTP.
	Health HealthConfig `yaml:"health"`
	// Metrics endpoint, in addition to the socket metrics.sock in RunDir.
	Metrics MetricsConfig `yaml:"metrics"`
	// Capture of the workloads' traffic.
	Capture CaptureConfig `yaml:"capture"`
	// Workloads on this host; for a node.
	Workloads []Workload `yaml:"workloads"`
	// Gateway makes this agent a gateway, which has no workloads.
	Gateway *GatewayConfig `yaml:"gateway"`

	// Log and Version come from the command, not from the file.
	Log     *slog.Logger `yaml:"-"`
	Version string       `yaml:"-"`
}

// Mode says how many Envoys serve the workloads.
type Mode string

// The modes.
const (
	Shared  Mode = "node"    // one for all: the cheapest
	Sidecar Mode = "sidecar" // one each: a process boundary around every workload's keys and traffic
)

// ControlConfig says where the control plane is and how to join it.
type ControlConfig struct {
	// Addresses, host:port, tried in turn. Default: those in the join token.
	Addresses []string `yaml:"addresses"`
	// TokenFile holds the join token; needed once, until the node has its certificate.
	TokenFile string `yaml:"tokenFile"`
}

// EnvoyConfig is Envoy's binary and limits.
type EnvoyConfig struct {
	Path        string `yaml:"path"`        // default: ISTHMUS_ENVOY, package isthmus-envoy, PATH, then cacheDir
	CacheDir    string `yaml:"cacheDir"`    // where `make envoy` put it; default .cache
	Concurrency int    `yaml:"concurrency"` // worker threads; default 2
	// MaxConnections from clients over all listeners; default 50000.
	MaxConnections uint32 `yaml:"maxConnections"`
	// MaxHeapMiB is where Envoy begins to shed load; default 1024.
	MaxHeapMiB uint64 `yaml:"maxHeapMiB"`
	// LogLevel of Envoy; default warning.
	LogLevel string `yaml:"logLevel"`
	// DrainTime limits how long requests may continue when the agent is told to stop. Default 5s; 0s ends Envoy
	// immediately.
	DrainTime *time.Duration `yaml:"drainTime"`
	// KeepOnStop leaves Envoy running when the agent is told to stop, for the next agent to take over. An agent that is
	// killed or crashes always leaves it.
	KeepOnStop bool `yaml:"keepOnStop"`
}

// DNSConfig says who answers for names outside the mesh.
type DNSConfig struct {
	// Upstreams, ip or ip:port, asked where the Mesh has outbound: AllowAny. None: such names do not exist.
	Upstreams []string `yaml:"upstreams"`
}

// HealthConfig is the health endpoint.
type HealthConfig struct {
	// Address, default 127.0.0.1:15021; "off" for none.
	Address string `yaml:"address"`
}

// MetricsConfig is the metrics endpoint: HTTPS with the node's certificate, for clients of the mesh's administrators.
type MetricsConfig struct {
	// Address, for example 0.0.0.0:15020; empty for none.
	Address string `yaml:"address"`
	// Allow lists SPIFFE IDs that may read metrics besides the administrators.
	Allow []string `yaml:"allow"`
}

// CaptureConfig is what capture leaves alone.
type CaptureConfig struct {
	ExcludeOutboundPorts []uint16 `yaml:"excludeOutboundPorts"`
	ExcludeOutboundCIDRs []string `yaml:"excludeOutboundCIDRs"`
	ExcludeInboundPorts  []uint16 `yaml:"excludeInboundPorts"`
	// LeaveOpen bounds how long connections from outside the mesh may go on that are open when a workload that accepts
	// plaintext is captured. 0s ends them. Default 24h.
	LeaveOpen *time.Duration `yaml:"leaveOpen"`
	// Off captures nothing at all: the workloads' traffic is then not protected.
	Off bool `yaml:"off"`
	// RemoveOnStop removes the rules when the agent stops. By default they stay: a workload whose agent is away is cut
	// off rather than exposed in plaintext.
	RemoveOnStop bool `yaml:"removeOnStop"`
}

// Workload is one workload on this host.
type Workload struct {
	Name           string            `yaml:"name"`
	Namespace      string            `yaml:"namespace"`
	ServiceAccount string            `yaml:"serviceAccount"` // default "default"
	Labels         map[string]string `yaml:"labels"`
	// Netns is the path of the workload's network namespace.
	Netns     string       `yaml:"netns"`
	Addresses []netip.Addr `yaml:"addresses"`
	Ports     []Port       `yaml:"ports"`
	// ExcludeInboundPorts are not captured, in addition to those of all workloads. Anyone who reaches the workload may
	// call them, and no policy applies.
	ExcludeInboundPorts []uint16 `yaml:"excludeInboundPorts"`
	// Readiness is how to find out whether the workload is ready. Without it, it always is.
	Readiness *Readiness `yaml:"readiness"`
	// WorkloadSocket serves the SPIFFE Workload API to the workload's own processes; nil: none.
	WorkloadSocket *WorkloadSocket `yaml:"workloadSocket"`
}

// Port is one port that a workload listens on.
type Port struct {
	Name   string `yaml:"name"`
	Number uint16 `yaml:"number"`
}

// Readiness is a probe: TCP or HTTP.
type Readiness struct {
	TCP     *Probe        `yaml:"tcp"`
	HTTP    *Probe        `yaml:"http"`
	Period  time.Duration `yaml:"period"`  // default 1s
	Timeout time.Duration `yaml:"timeout"` // default 1s
	// Failures in a row that make a ready workload unready; default 2.
	Failures int `yaml:"failures"`
}

// Probe is the target of a readiness check.
type Probe struct {
	Port uint16 `yaml:"port"`
	Path string `yaml:"path"` // HTTP only; default /
}

// GatewayConfig is a gateway's own description.
type GatewayConfig struct {
	ServiceAccount string     `yaml:"serviceAccount"`
	InnerAddress   netip.Addr `yaml:"innerAddress"`
	OuterAddress   netip.Addr `yaml:"outerAddress"`
	// InnerAddress6 and OuterAddress6 are the IPv6 addresses of a dual-stack gateway.
	InnerAddress6 netip.Addr `yaml:"innerAddress6"`
	OuterAddress6 netip.Addr `yaml:"outerAddress6"`
}

// GatewayInfo returns what the control plane is told of a gateway; nil for a node.
func (c Config) GatewayInfo() *snapshot.GatewayInfo {
	g := c.Gateway
	if g == nil {
		return nil
	}
	return &snapshot.GatewayInfo{
		ServiceAccount: g.ServiceAccount, InnerAddress: g.InnerAddress, OuterAddress: g.OuterAddress,
		InnerAddress6: g.InnerAddress6, OuterAddress6: g.OuterAddress6, MaxConnections: c.Envoy.MaxConnections,
	}
}

// Role returns the role of the agent.
func (c Config) Role() snapshot.Role {
	if c.Gateway != nil {
		return snapshot.RoleGateway
	}
	return snapshot.RoleNode
}

// Key returns the key of the workload in the control plane's tables.
func (w Workload) Key() string { return w.Namespace + "/" + w.Name }
