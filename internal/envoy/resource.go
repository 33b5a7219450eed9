// Package envoy turns a proxy's view into Envoy resources. It is pure and deterministic: equal views give equal bytes,
// so a resource's version is the hash of its content, and a proxy that has it is not sent it again.
//
// resource.go builds everything for one proxy. inbound*.go and outbound*.go are the two listeners of a workload,
// refusal.go and handover.go the listeners inside Envoy, federation*.go a gateway's boundary to other meshes. They use
// listeners.go and filters.go (chains and the order of filters); http.go (the connection manager) with upgrades.go,
// retries.go, replies.go, trailers.go, limits.go and buffers.go; clusters.go, destinations.go, endpoints.go,
// sockets.go, tls*.go, accesslog.go and names.go. authz*.go turn policies into RBAC and, on raw TCP, into chains.
// render.go formats resources like Envoy's files, and static.go puts them into a bootstrap for a trial.
package envoy

import (
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/view"
)

// The resource types, in the order in which additions are sent (make before break).
const (
	ClusterType  = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	EndpointType = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	SecretType   = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
	ListenerType = "type.googleapis.com/envoy.config.listener.v3.Listener"
	// ExtensionType is for connection managers that several chains share.
	ExtensionType = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"
	RouteType     = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
)

// Types lists them in that order.
var Types = []string{ClusterType, EndpointType, SecretType, ListenerType, ExtensionType, RouteType}

// Resource is one marshalled Envoy resource.
type Resource struct {
	Type    string
	Name    string
	Version string // hash of Body
	Body    []byte
	Refs    []model.Ref // the objects that it was compiled from
	Set     string      // of a cluster: the EDS endpoint set, if any
}

// Resources of one proxy by type, each sorted by name. Endpoint sets are only named here, since all proxies share them.
type Resources struct {
	ByType map[string][]*Resource
	Sets   []model.EndpointSet
}

// Build returns the resources of one proxy.
func Build(v *view.View) *Resources {
	b := &builder{view: v, out: map[string][]*Resource{}}
	for td, roots := range v.Roots {
		if len(roots) == 0 {
			continue // a validation context that never arrives accepts nobody
		}
		b.add(SecretType, bundleName(td), bundleSecret(td, roots), nil)
	}
	for _, w := range v.Workloads {
		b.workload(w)
	}
	if len(v.Workloads) > 0 {
		b.addBuiltin()
	}
	if v.Gateway != nil && v.Gateway.Federation != nil {
		b.federation(v.Gateway)
	}
	for _, rs := range b.out {
		slices.SortFunc(rs, func(a, b *Resource) int { return strings.Compare(a.Name, b.Name) })
	}
	return &Resources{ByType: b.out, Sets: v.Sets}
}

type builder struct {
	view *view.View
	out  map[string][]*Resource
}

func (b *builder) add(typ, name string, m proto.Message, refs []model.Ref) {
	b.out[typ] = append(b.out[typ], newResource(typ, name, m, refs))
}

func newResource(typ, name string, m proto.Message, refs []model.Ref) *Resource {
	body := marshal(m)
	refs = slices.Clone(refs)
	slices.Sort(refs)
	r := &Resource{Type: typ, Name: name, Version: hash(body), Body: body, Refs: slices.Compact(refs)}
	if c, ok := m.(*clusterv3.Cluster); ok {
		r.Set = c.GetEdsClusterConfig().GetServiceName()
	}
	return r
}

// hash returns 64 bits of SHA-256, enough to distinguish versions of one resource.
func hash(body []byte) string {
	sum := sha256.Sum256(body)
	return base64.RawURLEncoding.EncodeToString(sum[:8])
}

func marshal(m proto.Message) []byte {
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic(
			"marshal of a message made here: " + err.Error(),
		) // fails only for invalid UTF-8, and all input is checked
	}
	return body
}

func anyOf(m proto.Message) *anypb.Any {
	return &anypb.Any{TypeUrl: typeURL(m), Value: marshal(m)}
}

func typeURL(m proto.Message) string {
	return "type.googleapis.com/" + string(m.ProtoReflect().Descriptor().FullName())
}

func u32(v uint32) *wrapperspb.UInt32Value { return wrapperspb.UInt32(v) }

func boolean(v bool) *wrapperspb.BoolValue { return wrapperspb.Bool(v) }

func millis(n int64) *durationpb.Duration {
	return &durationpb.Duration{Seconds: n / 1000, Nanos: int32(n%1000) * 1e6}
}
