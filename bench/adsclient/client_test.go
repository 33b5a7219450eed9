package adsclient_test

import (
	"context"
	"net"
	"testing"
	"time"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tls "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"isthmus.dev/isthmus/bench/adsclient"
	"isthmus.dev/isthmus/bench/adstest"
	"isthmus.dev/isthmus/internal/waittest"
)

var overADS = &core.ConfigSource{ConfigSourceSpecifier: &core.ConfigSource_Ads{Ads: &core.AggregatedConfigSource{}}}

func TestFollowsReferencesAndReconnectsWithVersions(t *testing.T) {
	srv, conn := serve(t)
	srv.Set("p", "payments", edsCluster(t, "payments", "payments.default"), adsclient.CDS)
	srv.Set("p", "plain", &cluster.Cluster{Name: "plain"}, adsclient.CDS)
	srv.Set("p", "payments.default", &endpoint.ClusterLoadAssignment{ClusterName: "payments.default"}, adsclient.EDS)
	srv.Set("p", "unasked", &endpoint.ClusterLoadAssignment{ClusterName: "unasked"}, adsclient.EDS)
	srv.Set("p", "outbound", httpListener(t, "routes"), adsclient.LDS)
	srv.Set("p", "routes", &route.RouteConfiguration{Name: "routes"}, adsclient.RDS)
	srv.Set("p", "bundle/a.example", &tls.Secret{Name: "bundle/a.example"}, adsclient.SDS)

	c := adsclient.New(adsclient.Config{})
	stop := run(t, c, conn)
	want := map[string]int{adsclient.CDS: 2, adsclient.EDS: 1, adsclient.LDS: 1, adsclient.RDS: 1, adsclient.SDS: 1}
	await(t, "all six resources", func() bool { return holds(c, want) && c.Pending() == 0 })
	await(t, "every message acknowledged", func() bool { return srv.Acks() == c.Totals().Sum().Messages })
	stop()

	before := c.Totals()
	stop = run(t, c, conn)
	srv.Set("p", "payments.default", &endpoint.ClusterLoadAssignment{
		ClusterName: "payments.default", Endpoints: []*endpoint.LocalityLbEndpoints{{Priority: 1}},
	}, adsclient.EDS)
	await(t, "the changed endpoints", func() bool { return c.Totals().Since(before)[adsclient.EDS].Resources == 1 })
	waittest.Quiet(50 * time.Millisecond) // anything sent needlessly would arrive now
	if got := c.Totals().Since(before).Sum().Resources; got != 1 {
		t.Errorf("%d resources after reconnecting, want the 1 that changed", got)
	}
	stop()
}

func TestLetsGoWhatIsNoLongerReferredTo(t *testing.T) {
	srv, conn := serve(t)
	srv.Set("p", "payments", edsCluster(t, "payments", ""), adsclient.CDS)
	srv.Set("p", "payments", &endpoint.ClusterLoadAssignment{ClusterName: "payments"}, adsclient.EDS)
	c := adsclient.New(adsclient.Config{})
	defer run(t, c, conn)()
	await(t, "the endpoints", func() bool { return c.Holds(adsclient.EDS) == 1 })
	srv.Set("p", "payments", nil, adsclient.CDS)
	await(t, "nothing left", func() bool { return c.Holds(adsclient.CDS) == 0 && c.Holds(adsclient.EDS) == 0 })
	// Once the next endpoints have come, the server has read that those of payments are not wanted any more.
	srv.Set("p", "orders", edsCluster(t, "orders", ""), adsclient.CDS)
	srv.Set("p", "orders", &endpoint.ClusterLoadAssignment{ClusterName: "orders"}, adsclient.EDS)
	await(t, "the next endpoints", func() bool { return c.Holds(adsclient.EDS) == 1 })
	srv.Set("p", "payments", &endpoint.ClusterLoadAssignment{
		ClusterName: "payments",
		Endpoints:   []*endpoint.LocalityLbEndpoints{{}},
	}, adsclient.EDS)
	waittest.Quiet(50 * time.Millisecond)
	if got := c.Totals()[adsclient.EDS].Messages; got != 2 {
		t.Errorf("%d messages of endpoints, want 2: those of payments were not asked for any more", got)
	}
}

func TestCountsWholeMessages(t *testing.T) {
	srv, conn := serve(t)
	srv.Set("p", "payments", &cluster.Cluster{Name: "payments"}, adsclient.CDS)
	var sizes []int
	c := adsclient.New(adsclient.Config{OnMessage: func(m adsclient.Message) {
		sizes = append(sizes, m.Bytes, proto.Size(m.DeltaDiscoveryResponse))
	}})
	stop := run(t, c, conn)
	await(t, "the cluster", func() bool { return c.Holds(adsclient.CDS) == 1 })
	stop()
	got := c.Totals()[adsclient.CDS]
	// name "payments": a tag, a length and eight bytes.
	if got.ResourceBytes != 10 || got.Messages != 1 || len(sizes) != 2 || got.Bytes != sizes[1] ||
		sizes[0] != sizes[1] {
		t.Errorf("counted %+v, sizes %v", got, sizes)
	}
}

// edsCluster refers to endpoints and, by its TLS context, to a bundle over ADS and a certificate from elsewhere.
func edsCluster(t *testing.T, name, alias string) *cluster.Cluster {
	t.Helper()
	return &cluster.Cluster{
		Name:                 name,
		ClusterDiscoveryType: &cluster.Cluster_Type{Type: cluster.Cluster_EDS},
		EdsClusterConfig:     &cluster.Cluster_EdsClusterConfig{EdsConfig: overADS, ServiceName: alias},
		TransportSocket: &core.TransportSocket{ConfigType: &core.TransportSocket_TypedConfig{TypedConfig: pack(t,
			&tls.UpstreamTlsContext{
				CommonTlsContext: &tls.CommonTlsContext{
					TlsCertificateSdsSecretConfigs: []*tls.SdsSecretConfig{{
						Name: "spiffe://a.example/ns/x/sa/y",
						SdsConfig: &core.ConfigSource{
							ConfigSourceSpecifier: &core.ConfigSource_ApiConfigSource{
								ApiConfigSource: &core.ApiConfigSource{},
							},
						},
					}},
					ValidationContextType: &tls.CommonTlsContext_CombinedValidationContext{
						CombinedValidationContext: &tls.CommonTlsContext_CombinedCertificateValidationContext{
							ValidationContextSdsSecretConfig: &tls.SdsSecretConfig{
								Name:      "bundle/a.example",
								SdsConfig: overADS,
							},
						},
					},
				},
			})}},
	}
}

func httpListener(t *testing.T, routes string) *listener.Listener {
	t.Helper()
	manager := pack(t, &hcm.HttpConnectionManager{RouteSpecifier: &hcm.HttpConnectionManager_Rds{
		Rds: &hcm.Rds{ConfigSource: overADS, RouteConfigName: routes},
	}})
	return &listener.Listener{Name: "outbound", FilterChains: []*listener.FilterChain{{
		Filters: []*listener.Filter{{Name: "http", ConfigType: &listener.Filter_TypedConfig{TypedConfig: manager}}},
	}}}
}

func pack(t *testing.T, m proto.Message) *anypb.Any {
	t.Helper()
	a, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func serve(t *testing.T) (*adstest.Server, *grpc.ClientConn) {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ads, g := adstest.New(func(context.Context) string { return "p" }), grpc.NewServer()
	discovery.RegisterAggregatedDiscoveryServiceServer(g, ads)
	go g.Serve(lis)
	t.Cleanup(g.Stop)
	conn, err := grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return ads, conn
}

// run serves one stream in the background; the function that it returns ends it.
func run(t *testing.T, c *adsclient.Client, conn *grpc.ClientConn) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx, conn) }()
	return func() {
		cancel()
		if err := <-done; err == nil {
			t.Error("Run ended without saying why")
		}
	}
}

func holds(c *adsclient.Client, want map[string]int) bool {
	for typ, n := range want {
		if c.Holds(typ) != n {
			return false
		}
	}
	return true
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	waittest.Until(t, what, ok)
}
