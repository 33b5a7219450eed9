package node

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"isthmus.dev/isthmus/internal/reserved"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/strictyaml"
	"isthmus.dev/isthmus/internal/vip"
	"isthmus.dev/isthmus/internal/wellknown"
)

var dnsLabel = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

const (
	labelRule   = "use lower-case letters, digits and hyphens, at most 63"
	nameExample = "for example name: node-1"
)

// defaults sets what the file left out.
func (c *Config) defaults() {
	c.Mode = cmp.Or(c.Mode, Shared)
	c.RunDir = cmp.Or(c.RunDir, filepath.Join("/run/isthmus", string(c.Role())))
	c.StateDir = cmp.Or(c.StateDir, filepath.Join("/var/lib/isthmus", string(c.Role())))
	c.Envoy.CacheDir = cmp.Or(c.Envoy.CacheDir, ".cache")
	c.Envoy.Concurrency = cmp.Or(c.Envoy.Concurrency, 2)
	c.Envoy.MaxConnections = cmp.Or(c.Envoy.MaxConnections, snapshot.DefaultConnections)
	c.Envoy.MaxHeapMiB = cmp.Or(c.Envoy.MaxHeapMiB, 1024)
	c.Envoy.LogLevel = cmp.Or(c.Envoy.LogLevel, "warning")
	if c.Envoy.DrainTime == nil {
		usual := drainTime
		c.Envoy.DrainTime = &usual
	}
	c.Health.Address = cmp.Or(c.Health.Address, net.JoinHostPort("127.0.0.1", strconv.Itoa(wellknown.HealthPort)))
	if c.Capture.LeaveOpen == nil {
		most := leaveOpen
		c.Capture.LeaveOpen = &most
	}
	for i := range c.Workloads {
		w := &c.Workloads[i]
		w.ServiceAccount = cmp.Or(w.ServiceAccount, "default")
		if p := w.Readiness; p != nil {
			p.Period = cmp.Or(p.Period, time.Second)
			p.Timeout = cmp.Or(p.Timeout, time.Second)
			p.Failures = cmp.Or(p.Failures, 2)
			if p.HTTP != nil {
				p.HTTP.Path = cmp.Or(p.HTTP.Path, "/")
			}
		}
	}
	c.socketDefaults()
}

func (c *Config) validate(r *reader) {
	switch {
	case c.Name == "":
		r.add("name", "the agent has no name", "write the name that its join token was made for, "+nameExample)
	case !dnsLabel.MatchString(c.Name):
		r.add("name", fmt.Sprintf("%q is not a name", c.Name), labelRule+", "+nameExample)
	}
	for field, dir := range map[string]string{"runDir": c.RunDir, "stateDir": c.StateDir} {
		if !filepath.IsAbs(dir) {
			r.add(field, fmt.Sprintf("%q is not an absolute path", dir), "begin it with /")
		}
	}
	// A Unix socket's address holds 107 bytes, and the longest name in the directory is metrics.sock.
	if len(c.RunDir) > 90 {
		r.add("runDir", "the path is too long for the sockets inside it", "use one of at most 90 characters")
	}
	c.validateMode(r)
	c.validateAddresses(r)
	c.validateEnvoy(r)
	c.validateCapture(r)
	c.validateRole(r)
	c.validateSockets(r)
}

// maxSidecars bounds the Envoys of one agent: each holds a stream at the control plane, and about 70 MB.
const maxSidecars = 200

func (c *Config) validateMode(r *reader) {
	switch {
	case c.Mode != Shared && c.Mode != Sidecar:
		r.add("mode", fmt.Sprintf("%q is not a mode", c.Mode),
			"write node (one Envoy for all workloads) or sidecar (one Envoy a workload)")
	case c.Mode == Sidecar && c.Gateway != nil:
		r.add("mode", "a gateway has no workloads to run an Envoy each for", "remove mode")
	case c.Mode == Sidecar && len(c.Workloads) > maxSidecars:
		r.add("mode", fmt.Sprintf("%d workloads would need as many Envoys, more than %d", len(c.Workloads),
			maxSidecars), "use mode node, or more nodes")
	case c.Mode == Sidecar && len(c.RunDir) > 75:
		r.add("runDir", "the path is too long for the sockets of sidecars inside it",
			"use one of at most 75 characters")
	}
}

// WithMode returns the configuration with the mode from the command line.
func (c Config) WithMode(m Mode) (Config, error) {
	c.Mode = m
	r := reader{settings: strictyaml.Settings{File: "--mode"}}
	c.validateMode(&r)
	return c, strictyaml.Join(r.problems)
}

func (c *Config) validateAddresses(r *reader) {
	for i, a := range c.Control.Addresses {
		if !hostPort(a) {
			r.add(fmt.Sprintf("control.addresses[%d]", i), fmt.Sprintf("%q is not host:port", a),
				"write for example 10.0.0.1:15012")
		}
	}
	if c.Health.Address != "off" && !hostPort(c.Health.Address) {
		r.add("health.address", fmt.Sprintf("%q is not ip:port", c.Health.Address),
			`write for example 127.0.0.1:15021, or "off"`)
	}
	if c.Metrics.Address != "" && !hostPort(c.Metrics.Address) {
		r.add("metrics.address", fmt.Sprintf("%q is not ip:port", c.Metrics.Address),
			"write for example 0.0.0.0:15020, or remove it")
	}
	for i, id := range c.Metrics.Allow {
		if _, err := spiffe.Parse(id); err != nil {
			r.add(fmt.Sprintf("metrics.allow[%d]", i), err.Error(),
				"write for example spiffe://cards.example/ns/monitoring/sa/prometheus")
		}
	}
	if _, err := c.upstreams(); err != nil {
		r.add("dns.upstreams", err.Error(), "write for example 10.0.0.53 or 10.0.0.53:53")
	}
}

func (c *Config) validateEnvoy(r *reader) {
	if n := c.Envoy.Concurrency; n < 1 || n > 1024 {
		r.add("envoy.concurrency", fmt.Sprintf("%d is not a number of threads", n), "write 1 to 1024")
	}
	levels := []string{"trace", "debug", "info", "warning", "error", "critical", "off"}
	if !slices.Contains(levels, c.Envoy.LogLevel) {
		r.add("envoy.logLevel", fmt.Sprintf("%q is not a level", c.Envoy.LogLevel),
			"use one of trace, debug, info, warning, error, critical, off")
	}
	if c.Envoy.MaxHeapMiB < 128 {
		r.add("envoy.maxHeapMiB", "Envoy itself needs more than that", "write at least 128")
	}
	if d := *c.Envoy.DrainTime; d < 0 || d > maxDrainTime {
		r.add("envoy.drainTime", fmt.Sprintf("%s is not a time that a stop may take", d),
			"write 0s to 20s: the packages' units allow 30s for all")
	}
}

// maxLeaveOpen is thirty days: use an exclusion for connections that must go on longer.
const maxLeaveOpen = 720 * time.Hour

func (c *Config) validateCapture(r *reader) {
	for i, text := range c.Capture.ExcludeOutboundCIDRs {
		field := fmt.Sprintf("capture.excludeOutboundCIDRs[%d]", i)
		switch p, err := netip.ParsePrefix(text); {
		case err != nil:
			r.add(field, fmt.Sprintf("%q is not a CIDR", text), "write for example 192.0.2.0/24")
		case p.Overlaps(vip.Range), p.Overlaps(vip.Range6):
			r.add(field, text+" holds virtual addresses of the mesh: calls there would leave in plaintext",
				"write a range without them, for example 192.0.2.0/24")
		}
	}
	if d := *c.Capture.LeaveOpen; d < 0 || d > maxLeaveOpen {
		r.add("capture.leaveOpen", d.String()+" is not between 0 and 720h",
			"write for example 24h, or 0s to end the connections that are open when a workload is captured")
	}
	for field, ports := range map[string][]uint16{
		"capture.excludeOutboundPorts": c.Capture.ExcludeOutboundPorts,
		"capture.excludeInboundPorts":  c.Capture.ExcludeInboundPorts,
	} {
		if slices.Contains(ports, 0) {
			r.add(field, "0 is not a port", "write 1 to 65535")
		}
	}
}

func (c *Config) validateRole(r *reader) {
	switch {
	case c.Gateway != nil && len(c.Workloads) > 0:
		r.add("gateway", "a gateway has no workloads", "remove gateway, or move the workloads to a node of their own")
	case c.Gateway != nil:
		c.validateGateway(r)
	case len(c.Workloads) == 0:
		r.add("workloads", "the agent has neither workloads nor a gateway", "write one or the other")
	}
	names, namespaces := map[string]bool{}, map[string]string{}
	for i, w := range c.Workloads {
		at := fmt.Sprintf("workloads[%d]", i)
		w.validate(r, at, c.Capture.Off)
		if names[w.Key()] {
			r.add(at+".name", fmt.Sprintf("workload %s is there twice", w.Key()), "give one of them another name")
		}
		names[w.Key()] = true
		if other, taken := namespaces[filepath.Clean(w.Netns)]; taken && w.Netns != "" {
			r.add(at+".netns", fmt.Sprintf("workload %s lives there already", other),
				"give every workload a network namespace of its own")
		}
		namespaces[filepath.Clean(w.Netns)] = w.Key()
	}
}

func (c *Config) validateGateway(r *reader) {
	if !dnsLabel.MatchString(c.Gateway.ServiceAccount) {
		r.add("gateway.serviceAccount", fmt.Sprintf("%q is not a name", c.Gateway.ServiceAccount),
			labelRule+", for example gateway")
	}
	if !c.Gateway.InnerAddress.IsValid() {
		r.add("gateway.innerAddress", "it is missing", "write the ip at which the mesh reaches this gateway")
	}
	if !c.Gateway.OuterAddress.IsValid() {
		r.add("gateway.outerAddress", "it is missing", "write the ip at which peers reach this gateway")
	}
	for field, a := range map[string]netip.Addr{
		"gateway.innerAddress": c.Gateway.InnerAddress, "gateway.innerAddress6": c.Gateway.InnerAddress6,
		"gateway.outerAddress": c.Gateway.OuterAddress, "gateway.outerAddress6": c.Gateway.OuterAddress6,
	} {
		if a.IsValid() {
			checkRoutable(r, field, a)
		}
	}
	for _, p := range []struct {
		name       string
		first, six netip.Addr
	}{
		{"inner", c.Gateway.InnerAddress, c.Gateway.InnerAddress6},
		{"outer", c.Gateway.OuterAddress, c.Gateway.OuterAddress6},
	} {
		if p.six.IsValid() && (!p.six.Is6() || !p.first.Is4()) {
			field := "gateway." + p.name + "Address6"
			r.add(field, "it stands for the IPv6 address beside an IPv4 one",
				"write the IPv4 address under "+p.name+"Address and the IPv6 address here; a single one belongs there")
		}
	}
}

// checkRoutable refuses an address at which no other host could reach its owner.
func checkRoutable(r *reader, field string, a netip.Addr) {
	if what := reserved.Address(a); what != "" {
		r.add(field, fmt.Sprintf("%s is %s", a, what), "write the one at which others reach it")
	}
}

func (w Workload) validate(r *reader, at string, captureOff bool) {
	for _, f := range []struct{ name, value string }{
		{"name", w.Name}, {"namespace", w.Namespace}, {"serviceAccount", w.ServiceAccount},
	} {
		if f.value == "" {
			r.add(at+"."+f.name, "it is missing", "write it: "+labelRule)
		} else if !dnsLabel.MatchString(f.value) {
			r.add(at+"."+f.name, fmt.Sprintf("%q is not a name", f.value), labelRule)
		}
	}
	switch {
	case w.Netns == "" && !captureOff:
		r.add(at+".netns", "it is missing",
			"write the path of the workload's network namespace, for example /run/netns/"+w.Name)
	case w.Netns != "" && !filepath.IsAbs(w.Netns):
		r.add(at+".netns", fmt.Sprintf("%q is not an absolute path", w.Netns),
			"write for example /run/netns/"+filepath.Base(w.Netns))
	case strings.HasPrefix(filepath.Clean(w.Netns), "/proc/"):
		r.add(at+".netns",
			fmt.Sprintf("%s is a process's, by a number that another process has next: its identity would go with the number", w.Netns),
			"give the namespace a name (ip netns attach "+w.Name+" PID) and write /run/netns/"+w.Name)
	}
	if len(w.Addresses) == 0 {
		r.add(at+".addresses", "it is missing", "write the workload's ip addresses")
	}
	for i, a := range w.Addresses {
		checkRoutable(r, fmt.Sprintf("%s.addresses[%d]", at, i), a)
	}
	w.validatePorts(r, at)
	w.validateReadiness(r, at+".readiness")
}

func (w Workload) validatePorts(r *reader, at string) {
	numbers, names := map[uint16]bool{}, map[string]bool{}
	for i, p := range w.Ports {
		field := fmt.Sprintf("%s.ports[%d]", at, i)
		switch {
		case p.Number == 0:
			r.add(field+".number", "it is missing", "write 1 to 65535")
		case reserved.Port(p.Number) != "":
			r.add(field+".number", fmt.Sprintf("%d is %s", p.Number, reserved.Port(p.Number)),
				"let the workload listen on another")
		case numbers[p.Number]:
			r.add(field+".number", fmt.Sprintf("%d is there twice", p.Number), "remove one of them")
		}
		if p.Name != "" && names[p.Name] {
			r.add(field+".name", fmt.Sprintf("%q is there twice", p.Name), "give every port its own name")
		}
		numbers[p.Number], names[p.Name] = true, true
	}
	for i, port := range w.ExcludeInboundPorts {
		field := fmt.Sprintf("%s.excludeInboundPorts[%d]", at, i)
		switch {
		case port == 0:
			r.add(field, "0 is not a port", "write 1 to 65535")
		case reserved.Port(port) != "":
			r.add(field, fmt.Sprintf("%d is %s", port, reserved.Port(port)), "remove it")
		case numbers[port]:
			r.add(field,
				fmt.Sprintf("%d is a port of the workload in the mesh: excluded, it would be open to everybody, whatever policies say", port),
				"remove it here, or from ports")
		}
	}
}

func (w Workload) validateReadiness(r *reader, at string) {
	p := w.Readiness
	if p == nil {
		return
	}
	if (p.TCP == nil) == (p.HTTP == nil) {
		r.add(at, "it needs either tcp or http", "write one of them, for example tcp: {port: 8080}")
		return
	}
	if probe := cmp.Or(p.TCP, p.HTTP); probe.Port == 0 {
		r.add(at, "the probe has no port", "write the port to knock at")
	}
	if p.TCP != nil && p.TCP.Path != "" {
		r.add(at+".tcp.path", "a TCP probe has no path", "remove it, or use http")
	}
	if p.HTTP != nil && p.HTTP.Path[0] != '/' {
		r.add(at+".http.path", fmt.Sprintf("%q is not a path", p.HTTP.Path), "begin it with /")
	}
	if p.Period < 50*time.Millisecond || p.Timeout < 10*time.Millisecond || p.Failures < 1 {
		r.add(at, "the probe is too eager",
			"use a period of at least 50ms, a timeout of at least 10ms and at least 1 failure")
	}
}

func hostPort(s string) bool {
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		return false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0
}

// upstreams with the port filled in.
func (c *Config) upstreams() ([]netip.AddrPort, error) {
	var out []netip.AddrPort
	for _, text := range c.DNS.Upstreams {
		if ap, err := netip.ParseAddrPort(text); err == nil {
			out = append(out, ap)
			continue
		}
		a, err := netip.ParseAddr(text)
		if err != nil {
			return nil, fmt.Errorf("%q is not an ip or ip:port", text)
		}
		out = append(out, netip.AddrPortFrom(a, 53))
	}
	return out, nil
}
