package node

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"isthmus.dev/isthmus/internal/spiffe"
)

var (
	descInfo = prometheus.NewDesc("isthmus_agent_info", "The agent; always 1.",
		[]string{"name", "role", "version", "envoy"}, nil)
	descConnected = prometheus.NewDesc("isthmus_agent_control_connected", "Whether the control plane answers.", nil,
		nil)
	descEnvoyUp  = prometheus.NewDesc("isthmus_agent_envoy_running", "Whether Envoy runs.", nil, nil)
	descRestarts = prometheus.NewDesc("isthmus_agent_envoy_restarts_total", "How often Envoy was started again.", nil,
		nil)
	descFull = prometheus.NewDesc("isthmus_agent_envoy_refused_connections_total",
		"Connections that Envoy refused for want of room.", nil, nil)
	descStreams = prometheus.NewDesc("isthmus_agent_ads_streams", "Configuration streams open to the control plane.",
		nil, nil)
	descExpiry = prometheus.NewDesc("isthmus_agent_certificate_expiry_seconds",
		"When a certificate in use ends, Unix time.", []string{"spiffe_id"}, nil)
	descReady = prometheus.NewDesc("isthmus_agent_workload_ready", "Whether a workload is ready.",
		[]string{"workload"}, nil)
	descServed = prometheus.NewDesc("isthmus_agent_workload_served",
		"Whether a workload can be called, and call; if not, the log and isthmus status say why.",
		[]string{"workload"}, nil)
	descDNS = prometheus.NewDesc("isthmus_agent_dns_answers_total", "DNS answers to workloads.", []string{"result"},
		nil)
)

// Describe implements prometheus.Collector.
func (a *Agent) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descInfo, descConnected, descEnvoyUp, descRestarts, descFull, descStreams, descExpiry, descServed, descReady,
		descDNS,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (a *Agent) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	envoy := a.envoyState()
	gauge(descInfo, 1, a.cfg.Name, string(a.cfg.Role()), a.cfg.Version, envoy.Version)
	gauge(descConnected, boolToFloat(a.control.Connected()))
	gauge(descEnvoyUp, boolToFloat(envoy.Running))
	counter(descRestarts, uint64(envoy.Restarts))
	counter(descFull, envoy.Refused)
	streams := int64(0)
	for _, p := range a.proxies {
		streams += p.ads.Streams()
	}
	gauge(descStreams, float64(streams))
	for _, c := range a.certs() {
		gauge(descExpiry, float64(c.NotAfter.Unix()), c.SPIFFEID)
	}
	for _, h := range a.namespaces {
		key := h.workload.Key()
		gauge(descServed, boolToFloat(h.served() != nil), key)
		gauge(descReady, boolToFloat(h.served() != nil && a.probes.Ready(key)), key)
	}
	n := a.dns.Counts()
	counter(descDNS, n.Mesh, "mesh")
	counter(descDNS, n.Forwarded, "forwarded")
	counter(descDNS, n.Failed, "failed")
	counter(descDNS, n.Refused, "refused")
}

func boolToFloat(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// metricsHandler serves the agent's own metrics at /metrics and Envoy's at /metrics/envoy, or those of one workload's
// Envoy at /metrics/envoy/{namespace}/{name}.
func (a *Agent) metricsHandler() http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(a, a.logs, a.workloads, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	for _, p := range a.proxies {
		mux.HandleFunc("GET "+strings.TrimSuffix("/metrics/envoy/"+p.workload, "/"),
			func(w http.ResponseWriter, r *http.Request) { a.stats(w, r, p) })
	}
	return mux
}

func (a *Agent) stats(w http.ResponseWriter, r *http.Request, p *proxy) {
	stats, err := p.envoy.Stats(r.Context())
	if err != nil {
		http.Error(w, "Envoy does not answer", http.StatusServiceUnavailable)
		return
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(constMetrics(stats))
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(w, r)
}

// constMetrics are metrics whose values are known already.
type constMetrics []prometheus.Metric

// Describe says nothing beforehand (prometheus.Collector: an unchecked one).
func (constMetrics) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (f constMetrics) Collect(ch chan<- prometheus.Metric) {
	for _, m := range f {
		ch <- m
	}
}

// metricsTLS presents the node's certificate and demands one of the same mesh.
func (a *Agent) metricsTLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true, ClientAuth: tls.RequireAnyClientCert,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			own := a.control.Identity()
			if own == nil {
				return nil, errors.New("the agent has not joined yet")
			}
			return own.TLS(), nil
		},
		VerifyConnection: func(cs tls.ConnectionState) error { return a.verifyReader(cs.PeerCertificates) },
	}
}

func (a *Agent) verifyReader(chain []*x509.Certificate) error {
	own := a.control.Identity()
	if own == nil {
		return errors.New("the agent has not joined yet")
	}
	intermediates := x509.NewCertPool()
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots: own.RootPool(), Intermediates: intermediates, CurrentTime: time.Now(),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	return err
}

// guarded lets administrators and the identities in metrics.allow read. Each request is checked, since its connection
// may outlast its certificate, the root, or the administrator.
func (a *Agent) guarded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 || a.verifyReader(r.TLS.PeerCertificates) != nil ||
			!a.mayRead(r.TLS.PeerCertificates[0]) {
			http.Error(w, "metrics are for the mesh's administrators and the identities in metrics.allow",
				http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (a *Agent) mayRead(leaf *x509.Certificate) bool {
	own := a.control.Identity()
	if own == nil {
		return false
	}
	var revoked []string
	if told := a.revoked.Load(); told != nil {
		revoked = *told
	}
	return mayRead(leaf, own.ID.TrustDomain(), a.cfg.Metrics.Allow, revoked)
}

// mayRead reports whether a certificate of this mesh is an administrator's that was not revoked, or of an identity that
// is allowed.
func mayRead(leaf *x509.Certificate, td spiffe.TrustDomain, allow, revoked []string) bool {
	id, err := spiffe.LeafID(leaf)
	if err != nil || !id.MemberOf(td) {
		return false
	}
	if _, admin := spiffe.AdminName(id); admin {
		return !slices.Contains(revoked, fmt.Sprintf("%x", leaf.SerialNumber))
	}
	return slices.Contains(allow, id.String())
}
