package envoy_test

import (
	"maps"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"isthmus.dev/isthmus/internal/compile"
	"isthmus.dev/isthmus/internal/envoy"
	"isthmus.dev/isthmus/internal/view"
)

// How long Envoy lets live what it carries, in each message that can say so. A duration that a message has and this
// table has not fails the test: whoever takes a new Envoy decides about it.
//
// said: Envoy has a limit by default, so that ours must be written. unsaid: there is none unless somebody writes one,
// and nobody does.
var timeLimits = map[protoreflect.FullName]struct{ said, unsaid, other []protoreflect.Name }{
	"envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager": {
		said: []protoreflect.Name{
			"stream_idle_timeout",
			"stream_flush_timeout",
			"request_timeout",
			"request_headers_timeout",
		},
		unsaid: []protoreflect.Name{"access_log_flush_interval"},
		other: []protoreflect.Name{
			"drain_timeout",
			"delayed_close_timeout",
		}, // of a connection that is being closed anyway
	},
	"envoy.config.core.v3.HttpProtocolOptions": {
		said:   []protoreflect.Name{"idle_timeout"},
		unsaid: []protoreflect.Name{"max_stream_duration"},
		other:  []protoreflect.Name{"max_connection_duration"}, // of a connection to an Envoy for new requests: toEnvoy
	},
	"envoy.config.route.v3.RouteAction": {
		said: []protoreflect.Name{"timeout"},
		unsaid: []protoreflect.Name{
			"idle_timeout",
			"flush_timeout",
			"max_grpc_timeout",
			"grpc_timeout_offset",
		}, // else the manager's
	},
	"envoy.config.route.v3.RouteAction.MaxStreamDuration": {
		unsaid: []protoreflect.Name{"max_stream_duration", "grpc_timeout_header_max", "grpc_timeout_header_offset"},
	},
	"envoy.config.route.v3.RetryPolicy": {
		unsaid: []protoreflect.Name{"per_try_timeout", "per_try_idle_timeout"},
	},
	"envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy": {
		said: []protoreflect.Name{"idle_timeout"},
		unsaid: []protoreflect.Name{
			"downstream_idle_timeout",
			"upstream_idle_timeout",
			"max_downstream_connection_duration",
			"access_log_flush_interval",
		},
	},
}

// The limits that have a meaning; any other that is written must be 0, which is none.
var meant = map[protoreflect.FullName][]time.Duration{
	// Of a request's head; where every call is refused.
	"envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.request_headers_timeout": {
		10 * time.Second, time.Second / 2,
	},
	// Of a connection without requests to an Envoy; to a program, and where every call is refused.
	"envoy.config.core.v3.HttpProtocolOptions.idle_timeout": {time.Minute, time.Second / 2, time.Second / 5},
	// Of probes.
	"envoy.config.route.v3.RouteAction.timeout": {15 * time.Second, 5 * time.Second},
}

// Nothing that a proxy carries is ended because it is silent or long.
func TestNoHiddenTimeLimit(t *testing.T) {
	for name, limits := range timeLimits {
		m, err := protoregistry.GlobalTypes.FindMessageByName(name)
		if err != nil {
			t.Fatal(err)
		}
		known := slices.Concat(limits.said, limits.unsaid, limits.other)
		for f := range durations(m.Descriptor()) {
			if !slices.Contains(known, f) {
				t.Errorf("%s has a limit that nobody decided about: %s", name, f)
			}
		}
	}
	seen := map[protoreflect.FullName]int{}
	for seed := range uint64(20) {
		mesh, _ := compile.Mesh(newWorld(t, seed).snapshot())
		for _, proxy := range slices.Sorted(maps.Keys(mesh.Proxies)) {
			res := envoy.Build(view.For(mesh, proxy))
			for _, typ := range envoy.Types {
				for _, r := range res.ByType[typ] {
					whole, err := (&anypb.Any{TypeUrl: r.Type, Value: r.Body}).UnmarshalNew()
					if err != nil {
						t.Fatal(err)
					}
					everyMessage(t, whole.ProtoReflect(), func(m protoreflect.Message) {
						seen[m.Descriptor().FullName()]++
						for _, complaint := range hiddenLimits(m) {
							t.Errorf("seed %d, %s of %s: %s", seed, r.Name, proxy, complaint)
						}
					})
				}
			}
			if t.Failed() {
				return
			}
		}
	}
	for _, name := range []protoreflect.FullName{
		"envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
		"envoy.config.route.v3.RouteAction", "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
		"envoy.config.core.v3.HttpProtocolOptions",
	} {
		if seen[name] < 100 {
			t.Errorf("%d of %s: the test proves too little", seen[name], name)
		}
	}
}

// hiddenLimits are the limits of a message that nobody wrote, or that mean nothing.
func hiddenLimits(m protoreflect.Message) (out []string) {
	limits := timeLimits[m.Descriptor().FullName()]
	fields := m.Descriptor().Fields()
	for _, name := range limits.said {
		f := fields.ByName(name)
		if !m.Has(f) {
			out = append(out, string(name)+" is not said")
			continue
		}
		d := m.Get(f).Message().Interface().(*durationpb.Duration).AsDuration()
		if d != 0 && !slices.Contains(meant[f.FullName()], d) {
			out = append(out, string(name)+" is "+d.String())
		}
	}
	for _, name := range limits.unsaid {
		if m.Has(fields.ByName(name)) {
			out = append(out, string(name)+" limits")
		}
	}
	return out
}

func durations(m protoreflect.MessageDescriptor) map[protoreflect.Name]bool {
	out := map[protoreflect.Name]bool{}
	for i := range m.Fields().Len() {
		if f := m.Fields().Get(i); f.Message() != nil && f.Message().FullName() == "google.protobuf.Duration" {
			out[f.Name()] = true
		}
	}
	return out
}

// everyListenerMessage visits all that a proxy's listeners are made of, the managers that they share included.
func everyListenerMessage(t *testing.T, res *envoy.Resources, visit func(protoreflect.Message)) {
	t.Helper()
	for _, typ := range []string{envoy.ListenerType, envoy.ExtensionType} {
		for _, r := range res.ByType[typ] {
			whole, err := (&anypb.Any{TypeUrl: r.Type, Value: r.Body}).UnmarshalNew()
			if err != nil {
				t.Fatal(err)
			}
			everyMessage(t, whole.ProtoReflect(), visit)
		}
	}
}

// everyMessage visits a message and all in it, those inside Any too.
func everyMessage(t *testing.T, m protoreflect.Message, visit func(protoreflect.Message)) {
	if packed, ok := m.Interface().(*anypb.Any); ok {
		inner, err := packed.UnmarshalNew()
		if err != nil {
			t.Fatal(err)
		}
		everyMessage(t, inner.ProtoReflect(), visit)
		return
	}
	visit(m)
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsMap() && f.MapValue().Message() != nil:
			v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
				everyMessage(t, v.Message(), visit)
				return true
			})
		case f.IsList() && f.Message() != nil:
			for i := range v.List().Len() {
				everyMessage(t, v.List().Get(i).Message(), visit)
			}
		case !f.IsMap() && !f.IsList() && f.Message() != nil:
			everyMessage(t, v.Message(), visit)
		}
		return true
	})
}
