package envoyproc

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// statistic is one of Envoy's statistics that somebody reads. All of them would be about 200 per cluster and 60 per
// listener, which use more memory than the cluster itself.
type statistic struct {
	// after the last scope that has a name of its own: "upstream_cx_total" of "cluster.NAME.upstream_cx_total"
	name string
	help string
	kind prometheus.ValueType
}

// statistics that belong to Envoy as a whole, by their whole names.
var ofEnvoy = []statistic{
	{"server.live", "1 while Envoy serves.", prometheus.GaugeValue},
	{"server.state", "0 live, 1 draining, 2 before initialization, 3 initializing.", prometheus.GaugeValue},
	{"server.uptime", "Seconds since Envoy began.", prometheus.GaugeValue},
	{"server.version", "Envoy's build, as a number.", prometheus.GaugeValue},
	{"server.memory_allocated", "Bytes that Envoy has allocated.", prometheus.GaugeValue},
	{"server.memory_heap_size", "Bytes of Envoy's heap.", prometheus.GaugeValue},
	{"server.total_connections", "Open connections of all listeners.", prometheus.GaugeValue},
	{"server.concurrency", "Worker threads.", prometheus.GaugeValue},
	{"server.envoy_bug_failures", "Faults of Envoy's own that it went on after.", prometheus.CounterValue},
	{"server.dynamic_unknown_fields", "Fields of the configuration that Envoy does not know.", prometheus.CounterValue},
	{"listener_manager.total_listeners_active", "Listeners in use.", prometheus.GaugeValue},
	{"listener_manager.total_listeners_draining", "Listeners that end.", prometheus.GaugeValue},
	{"listener_manager.total_filter_chains_draining", "Filter chains that end.", prometheus.GaugeValue},
	{"listener_manager.listener_create_failure", "Listeners that could not be made.", prometheus.CounterValue},
	{
		"listener_manager.listener_in_place_updated", "Listeners that were changed without an end.",
		prometheus.CounterValue,
	},
	{"cluster_manager.active_clusters", "Clusters in use.", prometheus.GaugeValue},
	{"control_plane.connected_state", "1 while Envoy has its configuration's stream.", prometheus.GaugeValue},
}

// statistics of each listener, cluster, connection manager and the like.
var ofEach = []statistic{
	{"downstream_cx_total", "Connections accepted.", prometheus.CounterValue},
	{"downstream_cx_active", "Open connections from clients.", prometheus.GaugeValue},
	{"downstream_cx_overflow", "Connections refused: the listener held as many as it may.", prometheus.CounterValue},
	{"downstream_global_cx_overflow", "Connections refused: Envoy held as many as it may.", prometheus.CounterValue},
	{"downstream_cx_overload_reject", "Connections refused: Envoy was short of memory.", prometheus.CounterValue},
	{"limited_connections", "Connections refused: their filter chain held as many as it may.", prometheus.CounterValue},
	{"no_filter_chain_match", "Connections refused: nothing is offered there.", prometheus.CounterValue},
	{"downstream_rq_total", "Requests from clients.", prometheus.CounterValue},
	{requestsActive, "Requests from clients under way.", prometheus.GaugeValue},
	{"ssl.handshake", "TLS handshakes that succeeded.", prometheus.CounterValue},
	{
		"ssl.connection_error", "TLS connections that failed otherwise than by the other side's certificate.",
		prometheus.CounterValue,
	},
	{"ssl.fail_verify_san", "Handshakes refused: another identity.", prometheus.CounterValue},
	{
		"ssl.fail_verify_error", "Handshakes refused: a certificate that leads to no trusted root, or has ended.",
		prometheus.CounterValue,
	},
	{"ssl.fail_verify_no_cert", "Handshakes refused: no certificate.", prometheus.CounterValue},
	{"upstream_cx_total", "Connections made.", prometheus.CounterValue},
	{"upstream_cx_active", "Open connections to endpoints.", prometheus.GaugeValue},
	{"upstream_cx_connect_fail", "Connections to endpoints that failed.", prometheus.CounterValue},
	{"upstream_cx_connect_timeout", "Connections to endpoints that were not made in time.", prometheus.CounterValue},
	{"upstream_rq_total", "Requests to endpoints.", prometheus.CounterValue},
	{"upstream_rq_pending_overflow", "Requests refused: too many waited for a connection.", prometheus.CounterValue},
	{"membership_total", "Endpoints.", prometheus.GaugeValue},
	{"membership_healthy", "Endpoints that are used.", prometheus.GaugeValue},
	{"rbac.allowed", "Calls that policy let pass.", prometheus.CounterValue},
	{"rbac.denied", "Calls that policy refused.", prometheus.CounterValue},
	{"update_rejected", "Configurations that Envoy refused.", prometheus.CounterValue},
	{"update_success", "Configurations that Envoy took.", prometheus.CounterValue},
	{"key_rotation_failed", "Certificates that Envoy could not replace.", prometheus.CounterValue},
	{"pressure", "How much of a resource is used, in percent.", prometheus.GaugeValue},
	{"active", "1 while Envoy acts on a shortage.", prometheus.GaugeValue},
	{"logs_dropped", "Log entries that reached no agent.", prometheus.CounterValue},
}

// scopes name what a statistic is of, by its first word, and the label that holds the name: as Envoy's own Prometheus
// output calls both where it has tags.
var scopes = []struct{ word, metric, label string }{
	{"cluster", "envoy_cluster", "envoy_cluster_name"},
	{"listener", "envoy_listener", "envoy_listener_address"},
	{"http", "envoy_http", "envoy_http_conn_manager_prefix"},
	{"tcp", "envoy_tcp", "envoy_tcp_prefix"},
	{"sds", "envoy_sds", "envoy_secret"},
	{"overload", "envoy_overload", "envoy_overload_name"},
	{"", "envoy_other", "envoy_scope"}, // the rest, by all of its scope
}

// statsConfig makes Envoy keep only the statistics that are read.
func statsConfig() object {
	var patterns []any
	for _, s := range ofEnvoy {
		patterns = append(patterns, object{"exact": s.name})
	}
	for _, s := range ofEach {
		patterns = append(patterns, object{"suffix": "." + s.name})
	}
	return object{
		"use_all_default_tags": false, // names are taken apart when they are read
		"stats_matcher":        object{"inclusion_list": object{"patterns": patterns}},
	}
}

// ofThread are the parts of what a listener counts, by thread.
var ofThread = regexp.MustCompile(`^listener\..*\.(worker_[0-9]+|main_thread)$`)

// metricOf converts one line of Envoy's statistics to a metric; nil for a statistic that is not listed above.
func metricOf(line string) prometheus.Metric {
	name, text, ok := cutLast(line, ": ")
	if !ok {
		return nil
	}
	value, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return nil
	}
	for _, s := range ofEnvoy {
		if s.name == name {
			return prometheus.MustNewConstMetric(prometheus.NewDesc("envoy_"+underscored(name), s.help, nil, nil),
				s.kind, value)
		}
	}
	for _, s := range ofEach {
		if scope, ok := strings.CutSuffix(name, "."+s.name); ok && !ofThread.MatchString(scope) {
			metric, label, of := named(scope)
			return prometheus.MustNewConstMetric(
				prometheus.NewDesc(metric+"_"+underscored(s.name), s.help, []string{label}, nil), s.kind, value,
				strings.ToValidUTF8(of, "?"))
		}
	}
	return nil
}

func named(scope string) (metric, label, of string) {
	for _, s := range scopes {
		if s.word == "" {
			return s.metric, s.label, scope
		}
		if of, ok := strings.CutPrefix(scope, s.word+"."); ok {
			return s.metric, s.label, of
		}
	}
	return "", "", ""
}

// cutLast cuts at the last sep: names of clusters may hold one, too.
func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

func underscored(name string) string { return strings.ReplaceAll(name, ".", "_") }

// Stats are Envoy's statistics, a metric each.
func (s *Supervisor) Stats(ctx context.Context) ([]prometheus.Metric, error) {
	var out []prometheus.Metric
	err := s.eachStat(ctx, "/stats", func(line string) error {
		if m := metricOf(line); m != nil {
			out = append(out, m)
		}
		return nil
	})
	return out, err
}

func (s *Supervisor) eachStat(ctx context.Context, path string, do func(line string) error) error {
	resp, err := s.get(ctx, path)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("read Envoy's statistics: %s", resp.Status)
	}
	lines := bufio.NewReader(resp.Body)
	for {
		line, err := lines.ReadString('\n')
		if line = strings.TrimSpace(line); line != "" {
			if err := do(line); err != nil {
				return err
			}
		}
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return fmt.Errorf("read Envoy's statistics: %w", err)
		}
	}
}

// refusedForRoom are the counters of connections refused because of a limit.
var refusedForRoom = []string{
	"downstream_cx_overflow", "downstream_global_cx_overflow", "downstream_cx_overload_reject", "limited_connections",
}

// requestsActive is the gauge of requests in progress in a connection manager.
const requestsActive = "downstream_rq_active"

// Refused returns how many connections Envoy has refused because it, or one of its listeners or chains, was full.
func (s *Supervisor) Refused(ctx context.Context) (total uint64, err error) {
	return s.sum(ctx, refusedForRoom...)
}

// Requests returns the number of requests in progress.
func (s *Supervisor) Requests(ctx context.Context) (uint64, error) { return s.sum(ctx, requestsActive) }

// sum adds up statistics with these names, except those of the connection that asks.
func (s *Supervisor) sum(ctx context.Context, names ...string) (total uint64, err error) {
	err = s.eachStat(ctx, "/stats?filter=("+strings.Join(names, "%7C")+")$", func(line string) error {
		name, value, _ := cutLast(line, ": ")
		if strings.HasPrefix(name, "http.admin.") ||
			!slices.ContainsFunc(names, func(s string) bool { return strings.HasSuffix(name, "."+s) }) {
			return nil
		}
		n, err := strconv.ParseUint(value, 10, 64)
		if err != nil {
			return fmt.Errorf("read Envoy's statistics: %w", err)
		}
		total += n
		return nil
	})
	return total, err
}
