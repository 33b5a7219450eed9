package meshd

import (
	"context"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/door"
	"isthmus.dev/isthmus/internal/meshd/admin"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/spiffe"
)

// metrics of the control plane.
type metrics struct {
	registry *prometheus.Registry
	apply    prometheus.Histogram
	builds   prometheus.Counter
	signed   prometheus.Counter
}

func newMetrics() *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		apply: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "isthmus_apply_seconds", Help: "From a new snapshot to everything published.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}),
		builds: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "isthmus_proxy_builds_total",
			Help: "Proxies whose configuration was made anew.",
		}),
		signed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "isthmus_certificates_signed_total",
			Help: "Certificates issued to nodes and workloads.",
		}),
	}
	m.registry.MustRegister(m.apply, m.builds, m.signed, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) applied(took time.Duration) { m.apply.Observe(took.Seconds()) }

func (m *metrics) built(n int) { m.builds.Add(float64(n)) }

// stateCollector reads the current state as metrics.
type stateCollector struct{ d *Daemon }

var (
	descConnected = prometheus.NewDesc("isthmus_proxy_connected", "1 while the proxy is connected.",
		[]string{"proxy"}, nil)
	descNack = prometheus.NewDesc("isthmus_proxy_refused",
		"1 while the proxy refuses its last configuration of a type.", []string{"proxy", "type"}, nil)
	descFindings = prometheus.NewDesc("isthmus_findings", "Findings about the configuration.", []string{"severity"},
		nil)
	descClosed = prometheus.NewDesc("isthmus_quarantined_objects",
		"Objects that are closed at some proxy, because its Envoy cannot run with them.", nil, nil)
	descContained = prometheus.NewDesc("isthmus_contained_proxies",
		"Proxies that are kept from what they cannot run with: held on an earlier configuration, searched for the "+
			"cause, or told all but what is in quarantine.",
		[]string{"state"}, nil)
	descRootEnd = prometheus.NewDesc("isthmus_root_expiry_timestamp_seconds", "When the mesh's own root ends.", nil,
		nil)
	descConnections = prometheus.NewDesc("isthmus_connections",
		"Open TLS connections to the control plane, by what their callers have shown: none or certificate.",
		[]string{"shown"}, nil)
	descTurnedAway = prometheus.NewDesc("isthmus_connections_turned_away_total",
		"TLS connections closed because of too many: of one address without a certificate (address), slow ones for "+
			"others' sake (slow), of one caller or of all (caller).",
		[]string{"why"}, nil)
	descHandshake = prometheus.NewDesc("isthmus_peer_handshakes_total",
		"TLS handshakes with a peer at this mesh's gateways.", []string{"peer", "result"}, nil)
	descDenials = prometheus.NewDesc("isthmus_peer_denials_total",
		"Requests of or to a peer that a gateway refused.", []string{"peer"}, nil)
	descRequests = prometheus.NewDesc("isthmus_peer_requests_total", "Requests and connections that crossed.",
		[]string{"peer"}, nil)
)

// Describe implements prometheus.Collector.
func (stateCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descConnected, descNack, descFindings, descClosed, descContained, descRootEnd, descConnections, descTurnedAway,
		descHandshake, descDenials, descRequests,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c stateCollector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for _, p := range c.d.xds.Status() {
		gauge(descConnected, number(p.Connected), p.Name)
		for _, t := range p.Types {
			gauge(descNack, number(t.Nack != ""), p.Name, t.Type)
		}
	}
	peers := map[string]bool{} // gateways may report names of peers that do not exist
	if p := c.d.loop.Published(); p != nil {
		for _, mp := range snapshot.Of[*v1alpha1.MeshPeer](p.Snapshot.Config) {
			peers[mp.Name] = true
		}
		count := map[string]float64{"error": 0, "warning": 0, "info": 0}
		for _, f := range p.AllFindings() {
			count[f.Severity.String()]++
		}
		for s, n := range count {
			gauge(descFindings, n, s)
		}
	}
	unproven, proven := c.d.connections.Open()
	gauge(descConnections, float64(unproven), "none")
	gauge(descConnections, float64(proven), "certificate")
	for why, n := range c.d.connections.Turned() {
		ch <- prometheus.MustNewConstMetric(descTurnedAway, prometheus.CounterValue, float64(n), why)
	}
	objects, contained := c.d.containment.Totals()
	gauge(descClosed, float64(objects))
	for state, n := range contained {
		gauge(descContained, float64(n), state)
	}
	gauge(descRootEnd, float64(c.d.authority.RootNotAfter().Unix()))
	for peer, n := range admin.PeerCounts(c.d.agents.Reports()) {
		if !peers[peer] {
			continue
		}
		counter := func(d *prometheus.Desc, v uint64, labels ...string) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
		}
		counter(descHandshake, n.HandshakesOK, peer, "ok")
		counter(descHandshake, n.HandshakesFailed, peer, "failed")
		counter(descDenials, n.Denials, peer)
		counter(descRequests, n.Requests, peer)
	}
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// scraping is open to administrators, and to the mesh's monitoring identity (namespace isthmus-system, service account
// "metrics").
var scraping = door.Methods{"isthmus.metrics": {"Read": {
	Who: door.Administrator | door.Workload, Only: mayRead, Action: "metrics",
	Deny: "metrics need the certificate of an administrator, or of service account metrics in namespace " +
		spiffe.SystemNamespace,
}}}

func mayRead(c door.Caller) bool {
	return c.Kind == door.Administrator || c.Kind == door.Workload && c.Name == spiffe.SystemNamespace+"/metrics"
}

// serveMetrics serves metrics.
func (d *Daemon) serveMetrics(ls *listeners) func(context.Context) error {
	d.metrics.registry.MustRegister(stateCollector{d})
	all := promhttp.HandlerFor(d.metrics.registry, promhttp.HandlerOpts{})
	through := door.HTTP{
		Door: d.door, Identify: door.OfConnection,
		Refuse: func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, status.Convert(err).Message(), http.StatusForbidden)
		},
	}
	h := through.Handle("/isthmus.metrics/Read", func(w http.ResponseWriter, r *http.Request, _ door.Caller) error {
		all.ServeHTTP(w, r)
		return nil
	})
	return func(ctx context.Context) error {
		return serveHTTP(ctx, plainServer(h, d.log), ls.metrics)
	}
}
