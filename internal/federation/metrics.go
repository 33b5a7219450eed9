package federation

import (
	"github.com/prometheus/client_golang/prometheus"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/peerrules"
	"isthmus.dev/isthmus/internal/snapshot"
)

// Metrics of peers, one series per MeshPeer.
var (
	descLive = prometheus.NewDesc("isthmus_peer_live", "1 while traffic with the peer is let through, else 0.",
		[]string{"peer"}, nil)
	descAge = prometheus.NewDesc("isthmus_peer_bundle_age_seconds",
		"Age of the last confirmation of the peer's roots.", []string{"peer"}, nil)
	descEnd = prometheus.NewDesc("isthmus_peer_root_expiry_timestamp_seconds",
		"When the peer's longest-lived root ends.", []string{"peer"}, nil)
	descLag = prometheus.NewDesc("isthmus_peer_catalogue_lag_seconds",
		"For how long the peer has lacked our newest catalogue; 0 when it has it.", []string{"peer"}, nil)
	descOffered = prometheus.NewDesc("isthmus_peer_offered_services", "Services that the peer offers.",
		[]string{"peer"}, nil)
	descRefresh = prometheus.NewDesc("isthmus_peer_refresh_failures_total", "Failed fetches of the peer's bundle.",
		[]string{"peer"}, nil)
	descPush = prometheus.NewDesc("isthmus_peer_catalogue_push_failures_total",
		"Failed pushes of our catalogue to the peer.", []string{"peer"}, nil)
)

// Describe implements prometheus.Collector.
func (s *Service) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descLive, descAge, descEnd, descLag, descOffered, descRefresh, descPush} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (s *Service) Collect(ch chan<- prometheus.Metric) {
	snap := s.snapshotNow()
	verdicts := peerrules.All(snap, s.TrustDomain.Name())
	for _, p := range snapshot.Of[*v1alpha1.MeshPeer](s.snapshotConfig()) {
		state, h := snap.Peers[p.Name], s.Health(p.Name)
		gauge := func(d *prometheus.Desc, v float64) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, p.Name)
		}
		count := func(d *prometheus.Desc, v uint64) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), p.Name)
		}
		live := 0.0
		if verdicts[p.Name].Live {
			live = 1
		}
		gauge(descLive, live)
		if !state.BundleTime.IsZero() {
			gauge(descAge, max(snap.Time.Sub(state.BundleTime).Seconds(), 0))
		}
		if end, _ := RootEnd(snap.Time, peerrules.Roots(p, state)); !end.IsZero() {
			gauge(descEnd, float64(end.Unix()))
		}
		lag := 0.0
		if !h.Behind.IsZero() {
			lag = max(snap.Time.Sub(h.Behind).Seconds(), 0)
		}
		gauge(descLag, lag)
		offered := 0
		if state.Catalogue != nil {
			offered = len(state.Catalogue.Services)
		}
		gauge(descOffered, float64(offered))
		count(descRefresh, h.RefreshFailures)
		count(descPush, h.PushFailures)
	}
}
