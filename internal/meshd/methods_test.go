package meshd

import (
	"maps"
	"slices"
	"strings"
	"testing"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/door"
)

// Every method that is served has a row, every row is of one, and none is served past the door's bounds.
func TestEveryMethodHasARow(t *testing.T) {
	left := maps.Clone(methods)
	for _, desc := range []grpc.ServiceDesc{
		agentapi.Desc, adminapi.Desc, discoveryv3.AggregatedDiscoveryService_ServiceDesc,
	} {
		for _, m := range desc.Methods {
			t.Errorf("%s of %s is unary: describe it by rpc.Unary, so that its messages are bounded", m.MethodName,
				desc.ServiceName)
		}
		for _, s := range desc.Streams {
			name := "/" + desc.ServiceName + "/" + s.StreamName
			m, ok := methods[name]
			delete(left, name)
			switch {
			case !ok:
				t.Errorf("%s has no row in methods: nobody can call it", name)
			case !s.ClientStreams && !s.ServerStreams:
				t.Errorf("%s passes by the stream interceptor", name)
			case m.Action == "":
				t.Errorf("%s is recorded as nothing", name)
			case m.Who != 0 && m.Bytes == 0:
				t.Errorf("%s takes no message", name)
			case m.Who&door.Stranger != 0 && (m.Bytes > 32<<10 || m.AtOnce == 0 || m.InAll == 0 || m.Life == 0):
				t.Errorf("%s is open to strangers without bounds", name)
			}
		}
	}
	for name, m := range left { // over HTTP
		if strings.HasPrefix(name, "/isthmus.peering/") || strings.HasPrefix(name, "/isthmus.metrics/") {
			delete(left, name)
			if m.Who == 0 || m.Action == "" || m.Deny == "" {
				t.Errorf("the row of %s lacks something: %+v", name, m)
			}
		}
	}
	if len(left) > 0 {
		t.Errorf("rows of methods that are not served: %v", slices.Sorted(maps.Keys(left)))
	}
}

// What administrators may do is recorded, but for these, which change nothing.
func TestChangesAreRecorded(t *testing.T) {
	var reads []string
	for name, m := range methods {
		if service, method, _ := strings.Cut(strings.TrimPrefix(name, "/"), "/"); service == adminapi.Service &&
			!m.Recorded {
			reads = append(reads, method)
		}
	}
	slices.Sort(reads)
	want := "Access AdminList CAStatus Catalogue CertList Check Events ExportDraft Exports ImportDraft Imports Inventory PeerList PeerManifest PeerProbe ProxyConfig Status TokenList"
	if got := strings.Join(reads, " "); got != want {
		t.Errorf("not recorded: %s\nwant %s", got, want)
	}
}
