package envoy

import (
	"crypto/sha256"
	"encoding/base64"
	"slices"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// Most of the configuration for one workload is the same for every workload of every mesh: how requests are forwarded
// and how callers are refused. These built-in parts are compiled into the agent, which gives them to its Envoy:
// clusters and listeners in the bootstrap, filters when a chain requests one by name. The control plane only refers to
// them by name.
//
// Agent and control plane may be different versions of the program. So the names end with the version of the built-in
// parts, a hash of them all, and the agent reports its version (agentapi.Report). If that differs from the control
// plane's, the proxy is also sent the control plane's parts, under their own names. A name that nobody serves leads to
// a rejected listener or a chain that closes its connections, never to a part of another version.

// naming adds the version to the name of a built-in part.
type naming func(name string) string

// builtinParts are all built-in parts of one version.
type builtinParts struct {
	version   string
	resources []*Resource
}

var ours = func() builtinParts {
	sum := sha256.New()
	for _, r := range builtinOf(func(name string) string { return name }) {
		sum.Write(r.Body)
	}
	c := builtinParts{version: base64.RawURLEncoding.EncodeToString(sum.Sum(nil)[:6])}
	c.resources = builtinOf(c.named)
	return c
}()

func (c builtinParts) named(name string) string { return name + "@" + c.version }

func builtinOf(named naming) []*Resource {
	all := []*Resource{newResource(ClusterType, named(nobody), nobodyCluster(named(nobody)), nil)}
	for _, r := range []refusal{outboundRefusal, plaintextRefusal} {
		all = append(all,
			newResource(ClusterType, named(r.name), r.cluster(named), nil),
			newResource(ListenerType, named(r.name), r.listener(named), nil),
			builtinFilter(tcpFilter, r.name, named, r.filter(named)))
	}
	for c, name := range sharedManagers {
		all = append(all, builtinFilter(httpFilter, name, named, sharedManagerOf(callee(c), name)))
	}
	return all
}

func builtinFilter(sort, name string, named naming, config proto.Message) *Resource {
	name = named(sort + "/" + name)
	return newResource(ExtensionType, name, &corev3.TypedExtensionConfig{Name: name, TypedConfig: anyOf(config)}, nil)
}

// BuiltinVersion returns the version of the built-in parts of this program.
func BuiltinVersion() string { return ours.version }

// Builtin returns the built-in parts of this program: clusters, listeners and filters. They must not be modified.
func Builtin() []*Resource { return ours.resources }

// isBuiltin reports whether a resource is one of the built-in parts of this program.
func isBuiltin(r *Resource) bool {
	return slices.ContainsFunc(ours.resources, func(c *Resource) bool { return c.Type == r.Type && c.Name == r.Name })
}

// BuiltinFilter returns the response to Envoy's request for a filter; nil if the name is unknown.
func BuiltinFilter(name string) *anypb.Any {
	for _, r := range ours.resources {
		if r.Type == ExtensionType && r.Name == name {
			return &anypb.Any{TypeUrl: r.Type, Value: r.Body}
		}
	}
	return nil
}

// builtinTypes maps kinds of filters to the types of their configuration.
var builtinTypes = map[string]string{
	httpFilter: typeURL(&hcmv3.HttpConnectionManager{}), tcpFilter: typeURL(&tcpproxyv3.TcpProxy{}),
}

// builtin returns a filter that is requested by name.
func (b *builder) builtin(sort, name string) *listenerv3.Filter {
	source := agentSource()
	if b.view.Builtin != ours.version {
		source = overADS()
	}
	return &listenerv3.Filter{
		Name: ours.named(sort + "/" + name),
		ConfigType: &listenerv3.Filter_ConfigDiscovery{ConfigDiscovery: &corev3.ExtensionConfigSource{
			ConfigSource: source, TypeUrls: []string{builtinTypes[sort]},
		}},
	}
}

// addBuiltin is for a proxy whose agent lacks the built-in parts of this program.
func (b *builder) addBuiltin() {
	if b.view.Builtin == ours.version {
		return
	}
	for _, r := range ours.resources {
		b.out[r.Type] = append(b.out[r.Type], r)
	}
}

// nobody is a cluster without endpoints. Connections to it are closed without data.
const nobody = "nobody"

func nobodyCluster(name string) *clusterv3.Cluster {
	c := cluster(name, nil)
	c.UpstreamBindConfig = nil
	return useEndpoints(c, nil, nil)
}
