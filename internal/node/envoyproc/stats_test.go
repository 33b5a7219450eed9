package envoyproc

import (
	"net/http/httptest"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

type one struct{ prometheus.Metric }

func (one) Describe(chan<- *prometheus.Desc) {}

func (o one) Collect(ch chan<- prometheus.Metric) { ch <- o.Metric }

// What Envoy writes into a statistic's name is a label, and each has a sentence that says what it is.
func TestMetricOf(t *testing.T) {
	for line, want := range map[string]string{
		"cluster.default/web>pay: x.default.svc:80.upstream_cx_total: 7": `# HELP envoy_cluster_upstream_cx_total Connections made.
# TYPE envoy_cluster_upstream_cx_total counter
envoy_cluster_upstream_cx_total{envoy_cluster_name="default/web>pay: x.default.svc:80"} 7
`,
		"listener.10.0.0.1_15006.ssl.fail_verify_san: 1": `# HELP envoy_listener_ssl_fail_verify_san Handshakes refused: another identity.
# TYPE envoy_listener_ssl_fail_verify_san counter
envoy_listener_ssl_fail_verify_san{envoy_listener_address="10.0.0.1_15006"} 1
`,
		"http.in.rds.r.update_success: 2": `# HELP envoy_http_update_success Configurations that Envoy took.
# TYPE envoy_http_update_success counter
envoy_http_update_success{envoy_http_conn_manager_prefix="in.rds.r"} 2
`,
		"server.live: 1": `# HELP envoy_server_live 1 while Envoy serves.
# TYPE envoy_server_live gauge
envoy_server_live 1
`,
		"access_logs.grpc_access_log.logs_dropped: 3": `# HELP envoy_other_logs_dropped Log entries that reached no agent.
# TYPE envoy_other_logs_dropped counter
envoy_other_logs_dropped{envoy_scope="access_logs.grpc_access_log"} 3
`,
		"listener.0.0.0.0_15006.worker_0.downstream_cx_total: 1": "",
		"cluster.x.unknown: 1":                "",
		"cluster.x.upstream_cx_total: many":   "",
		"cluster.x.upstream_cx_length_ms: No": "",
		"":                                    "",
	} {
		got := ""
		if m := metricOf(line); m != nil {
			reg := prometheus.NewRegistry()
			reg.MustRegister(one{m})
			w := httptest.NewRecorder()
			promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
			got = w.Body.String()
		}
		if got != want {
			t.Errorf("%q:\n%s\nwant\n%s", line, got, want)
		}
	}
}
