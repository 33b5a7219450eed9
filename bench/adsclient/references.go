package adsclient

import (
	"sync"

	"github.com/cespare/xxhash/v2"
	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tls "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
)

// name is one resource that another one refers to.
type name struct{ typeURL, name string }

// References finds what a resource makes Envoy ask for over ADS. It remembers answers by content.
type References struct {
	mu    sync.Mutex // guards known
	known map[uint64][]name
}

// NewReferences makes an empty memory.
func NewReferences() *References { return &References{known: map[uint64][]name{}} }

// In lists what a resource refers to. A part that cannot be read refers to nothing.
func (r *References) In(a *anypb.Any) []name {
	if a.TypeUrl == EDS {
		return nil
	}
	key := xxhash.Sum64(a.Value)
	r.mu.Lock()
	found, ok := r.known[key]
	r.mu.Unlock()
	if ok {
		return found
	}
	walkAny(a, func(n name) { found = append(found, n) })
	r.mu.Lock()
	r.known[key] = found
	r.mu.Unlock()
	return found
}

func walkAny(a *anypb.Any, found func(name)) {
	m, err := a.UnmarshalNew()
	if err != nil {
		return // a type of some extension that this program does not know
	}
	walk(m.ProtoReflect(), found)
}

// walk visits a message and all that is in it, also what is packed as Any.
func walk(m protoreflect.Message, found func(name)) {
	if a, ok := m.Interface().(*anypb.Any); ok {
		walkAny(a, found)
		return
	}
	if n := reference(m.Interface()); n.name != "" {
		found(n)
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.IsMap():
			if fd.MapValue().Message() != nil {
				v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
					walk(v.Message(), found)
					return true
				})
			}
		case fd.Message() == nil:
		case fd.IsList():
			for i := range v.List().Len() {
				walk(v.List().Get(i).Message(), found)
			}
		default:
			walk(v.Message(), found)
		}
		return true
	})
}

// reference is what this one message refers to, not counting what is in it.
func reference(m proto.Message) name {
	switch m := m.(type) {
	case *cluster.Cluster:
		if m.GetType() == cluster.Cluster_EDS {
			if alias := m.GetEdsClusterConfig().GetServiceName(); alias != "" {
				return name{EDS, alias}
			}
			return name{EDS, m.Name}
		}
	case *hcm.Rds:
		return overADS(m.ConfigSource, RDS, m.RouteConfigName)
	case *tls.SdsSecretConfig:
		return overADS(m.SdsConfig, SDS, m.Name)
	case *hcm.HttpFilter:
		return overADS(m.GetConfigDiscovery().GetConfigSource(), ECDS, m.Name)
	case *listener.Filter:
		return overADS(m.GetConfigDiscovery().GetConfigSource(), ECDS, m.Name)
	}
	return name{}
}

func overADS(source *core.ConfigSource, typeURL, n string) name {
	if source.GetAds() == nil {
		return name{}
	}
	return name{typeURL, n}
}
