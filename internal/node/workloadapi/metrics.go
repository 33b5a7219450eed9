package workloadapi

import "github.com/prometheus/client_golang/prometheus"

var (
	descStreams = prometheus.NewDesc("isthmus_agent_workload_api_streams",
		"Streams of the SPIFFE Workload API that a workload has open.", []string{"workload"}, nil)
	descRefused = prometheus.NewDesc("isthmus_agent_workload_api_refused_total",
		"Connections to a workload's SPIFFE Workload API that were not the workload's, or were too many.",
		[]string{"workload"}, nil)
)

// Describe implements prometheus.Collector.
func (s *Server) Describe(ch chan<- *prometheus.Desc) {
	ch <- descStreams
	ch <- descRefused
}

// Collect implements prometheus.Collector.
func (s *Server) Collect(ch chan<- prometheus.Metric) {
	for _, w := range s.served {
		ch <- prometheus.MustNewConstMetric(descStreams, prometheus.GaugeValue, float64(w.streams.Load()), w.Name)
		ch <- prometheus.MustNewConstMetric(descRefused, prometheus.CounterValue, float64(w.refused.Load()), w.Name)
	}
}
