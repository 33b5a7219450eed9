package envoy_test

import (
	"slices"
	"strings"
	"testing"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/protobuf/reflect/protoreflect"

	"isthmus.dev/isthmus/internal/compile"
	"isthmus.dev/isthmus/internal/envoy"
	"isthmus.dev/isthmus/internal/view"
)

// Wherever a proxy hears HTTP, what it answers itself is on record, by whatever name, and the Host and what other
// proxies said stay as they were sent. Wherever it listens, connections that it refuses are on record. What control
// planes and Envoys ask each other is the exception: probes say themselves how far they came, and health is what they
// are for.
func TestEveryRefusalIsOnRecord(t *testing.T) {
	managers, listeners := 0, 0
	for seed := range uint64(20) {
		mesh, _ := compile.Mesh(newWorld(t, seed).snapshot())
		for proxy := range mesh.Proxies {
			everyListenerMessage(t, envoy.Build(view.For(mesh, proxy)), func(m protoreflect.Message) {
				switch m := m.Interface().(type) {
				case *listenerv3.Listener:
					listeners++
					if len(m.AccessLog) == 0 && !chainsLog(m) {
						t.Errorf("%s has no log, nor has each of its chains", m.Name)
					}
				case *corev3.TypedExtensionConfig:
					passing := &tcpproxyv3.TcpProxy{}
					if m.TypedConfig.UnmarshalTo(passing) == nil && len(passing.AccessLog) == 0 {
						t.Errorf("%s has no log", m.Name)
					}
				case *hcmv3.HttpConnectionManager:
					if !strings.Contains(m.StatPrefix, "probe.") && !strings.HasSuffix(m.StatPrefix, "/health") {
						managers++
						checkManager(t, m)
					}
				}
			})
			if t.Failed() {
				return
			}
		}
	}
	if managers < 100 || listeners < 100 {
		t.Errorf("%d managers and %d listeners: the test proves too little", managers, listeners)
	}
}

// chainsLog says whether all that a listener's chains end in logs for itself: connection managers do, and filters that
// are asked for by name.
func chainsLog(l *listenerv3.Listener) bool {
	chains := l.FilterChains
	if l.DefaultFilterChain != nil {
		chains = append(slices.Clone(chains), l.DefaultFilterChain)
	}
	return !slices.ContainsFunc(chains, func(c *listenerv3.FilterChain) bool {
		last := c.Filters[len(c.Filters)-1]
		passing := &tcpproxyv3.TcpProxy{}
		switch {
		case last.GetConfigDiscovery() != nil || last.GetTypedConfig().MessageIs(&hcmv3.HttpConnectionManager{}):
			return false
		case last.GetTypedConfig().UnmarshalTo(passing) == nil:
			return len(passing.AccessLog) == 0
		}
		return true
	})
}

func checkManager(t *testing.T, h *hcmv3.HttpConnectionManager) {
	t.Helper()
	recorded := false
	for _, l := range h.AccessLog {
		recorded = recorded || l.Filter == nil || takesOwnAnswers(l.Filter)
	}
	if !recorded {
		t.Errorf("%s: its own answers are not on record", h.StatPrefix)
	}
	if h.StripPortMode != nil || h.StripTrailingHostDot || h.UseRemoteAddress.GetValue() ||
		len(h.OriginalIpDetectionExtensions) != 1 {
		t.Errorf("%s: the Host, or what other proxies said, is changed or believed", h.StatPrefix)
	}
}

// takesOwnAnswers says whether a filter takes what went wrong, and of all statuses from 400 on what Envoy answered
// itself.
func takesOwnAnswers(f *accesslogv3.AccessLogFilter) bool {
	var flags, all, own bool
	for _, f := range f.GetOrFilter().GetFilters() {
		for _, f := range f.GetAndFilter().GetFilters() {
			flags = flags || len(f.GetResponseFlagFilter().GetFlags()) == 25
			own = own ||
				strings.Contains(
					string(f.GetExtensionFilter().GetTypedConfig().GetValue()),
					`response.code_details != "via_upstream"`,
				)
			for _, f := range f.GetOrFilter().GetFilters() {
				c := f.GetStatusCodeFilter().GetComparison()
				all = all || c.GetOp() == accesslogv3.ComparisonFilter_GE && c.GetValue().GetDefaultValue() == 400
			}
		}
	}
	return flags && all && own
}
